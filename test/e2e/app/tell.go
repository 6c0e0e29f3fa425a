package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// tell connects to each address once, with what its own end of the connection is
// called. A server that sees another one has been called by a proxy.
func tell(addresses []string) error {
	name, err := os.Hostname()
	for _, address := range addresses {
		err = errors.Join(err, tellOne(name, address))
	}
	return err
}

func tellOne(name, address string) error {
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
	return nil
}
