package webhook

import (
	"container/list"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// maxConnections is twice the number that has to be answered at once. A connection
// takes some 40 kB.
const maxConnections = 2048

// connections bounds the number of connections. One too many closes the one that
// has been inactive for longest: API servers are done with theirs in milliseconds,
// or can open a new one.
type connections struct {
	limit   int
	dropped func()

	mutex    sync.Mutex
	order    list.List // of net.Conn, the one with the oldest change of state first
	elements map[net.Conn]*list.Element
}

func newConnections(limit int, dropped func()) *connections {
	return &connections{limit: limit, dropped: dropped, elements: map[net.Conn]*list.Element{}}
}

// changed implements http.Server's ConnState.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	switch element := c.elements[conn]; state {
	case http.StateNew:
		c.elements[conn] = c.order.PushBack(conn)
		if c.order.Len() > c.limit {
			c.drop(c.order.Front())
		}
	case http.StateActive, http.StateIdle:
		if element != nil {
			c.order.MoveToBack(element)
		}
	case http.StateClosed, http.StateHijacked:
		c.forget(conn)
	}
}

func (c *connections) drop(element *list.Element) {
	conn := element.Value.(net.Conn)
	c.forget(conn)
	c.dropped()
	if secure, is := conn.(*tls.Conn); is {
		conn = secure.NetConn() // without TLS' close_notify, which may have to wait
	}
	_ = conn.Close()
}

func (c *connections) forget(conn net.Conn) {
	if element := c.elements[conn]; element != nil {
		c.order.Remove(element)
		delete(c.elements, conn)
	}
}
