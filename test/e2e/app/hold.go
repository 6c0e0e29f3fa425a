package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// held is the number of a client's connections.
	held = 10
	// lastWords is how many bytes a server sends on each of them when it ends: more
	// than sockets and a proxy buffer.
	lastWords = 8 << 20
)

// idleClients are the connections that a server keeps open.
type idleClients struct {
	mutex sync.Mutex
	open  []net.Conn
}

// keep accepts connections, and does nothing with them.
func (c *idleClients) keep(listener net.Listener) error {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		c.mutex.Lock()
		c.open = append(c.open, connection)
		c.mutex.Unlock()
	}
}

// farewell sends each client the last words, all at once, and closes.
func (c *idleClients) farewell() error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	failed := make(chan error)
	for _, connection := range c.open {
		go func() {
			_, err := connection.Write(make([]byte, lastWords))
			failed <- errors.Join(err, connection.Close())
		}()
	}
	var err error
	for range c.open {
		err = errors.Join(err, <-failed)
	}
	return err
}

// hold opens connections, leaves them idle, and reports how many received all of
// the last words.
func hold(address string) error {
	connections := []net.Conn{}
	for range held {
		connection, err := net.DialTimeout("tcp", address, 20*time.Second)
		if err != nil {
			return err
		}
		connections = append(connections, connection)
	}
	fmt.Println("holding", len(connections))
	whole := 0
	for _, connection := range connections {
		count, err := io.Copy(io.Discard, connection)
		if count == lastWords && err == nil {
			whole++
			continue
		}
		fmt.Println(count, "bytes,", err)
	}
	fmt.Println("whole:", whole)
	return nil
}
