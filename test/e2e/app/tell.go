package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"time"
)

// tell connects to each address once, with what its own end of the connection is
// called. A server that sees another one has been called by a proxy.
func tell(addresses []string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	for _, address := range addresses {
		connection, err := net.DialTimeout("tcp", address, 20*time.Second)
		if err != nil {
			return err
		}
		defer connection.Close()
		if err := connection.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(connection, name, connection.LocalAddr()); err != nil {
			return err
		}
		if _, err := bufio.NewReader(connection).ReadString('\n'); err != nil {
			return fmt.Errorf("%s has not heard: %w", address, err)
		}
	}
	return nil
}
