package webhook

import (
	"container/list"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// maxConnections is twice what has to be answered at once. A connection takes
// some 40 kB.
const maxConnections = 2048

// connections bounds how many there are. Where there is one too many, the one
// that has done nothing for longest gives way: API servers are done with theirs
// in milliseconds, or can open one anew.
type connections struct {
	most    int
	dropped func()

	mutex sync.Mutex
	order list.List // of net.Conn, the one whose state changed first at the front
	at    map[net.Conn]*list.Element
}

func newConnections(most int, dropped func()) *connections {
	return &connections{most: most, dropped: dropped, at: map[net.Conn]*list.Element{}}
}

// changed is http.Server's ConnState.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	switch at := c.at[conn]; state {
	case http.StateNew:
		c.at[conn] = c.order.PushBack(conn)
		if c.order.Len() > c.most {
			c.drop(c.order.Front())
		}
	case http.StateActive, http.StateIdle:
		if at != nil {
			c.order.MoveToBack(at)
		}
	case http.StateClosed, http.StateHijacked:
		c.forget(conn)
	}
}

func (c *connections) drop(at *list.Element) {
	conn := at.Value.(net.Conn)
	c.forget(conn)
	c.dropped()
	if secure, is := conn.(*tls.Conn); is {
		conn = secure.NetConn() // without a farewell, which may have to wait
	}
	_ = conn.Close()
}

func (c *connections) forget(conn net.Conn) {
	if at := c.at[conn]; at != nil {
		c.order.Remove(at)
		delete(c.at, conn)
	}
}
