package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// The pod's source ports in TestSourcePorts, and the connections to one port of the app: three
// times as many.
const (
	sourcePorts     = 500
	batchSize       = 400
	batches         = 4
	sourcePortRange = "10000 10499"
)

// reuseAge is longer than a port has to be in TIME_WAIT before Linux uses it again for a connection
// over loopback (net.ipv4.tcp_tw_reuse=2); the kernel counts whole seconds.
const reuseAge = 2 * time.Second

// TestSourcePorts checks that new connections do not run out of ports, whichever end closes first.
// All of the proxy's connections to the app come from one address, and a used port waits for a
// minute. Real pods have 22,000 ports; this one has 500.
func TestSourcePorts(t *testing.T) {
	t.Parallel()
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel() // as in TestProof
			p := v.start(t, nil)
			if err := p.Pod.Sysctl("net/ipv4/ip_local_port_range", sourcePortRange); err != nil {
				t.Fatal(err)
			}
			for _, d := range []direction{inbound4, inbound6} {
				w := &way{direction: d, pod: p, system: v.system}
				t.Run(d.String()+", the client closes first", func(t *testing.T) {
					w.serve(t, linePort, answerLine)
					for batch := range batches {
						if batch > 0 {
							time.Sleep(reuseAge)
						}
						w.connectAgainAndAgain(t, linePort)
					}
				})
				t.Run(d.String()+", the server closes first", func(t *testing.T) {
					w.serve(t, lastLinePort, func(conn *net.TCPConn) error {
						_, err := bufio.NewReader(conn).ReadString('\n')
						if err == nil {
							_, err = io.WriteString(conn, line)
						}
						return err
					})
					for range batches {
						w.connectAgainAndAgain(t, lastLinePort)
					}
				})
				w.checkSources(t)
			}
		})
	}
}

// Ports of servers that take a line and answer one.
const (
	linePort     uint16 = 2003
	lastLinePort uint16 = 2004
)

const line = "one line\n"

// answerLine answers a line, and waits for the client to close.
func answerLine(conn *net.TCPConn) error {
	reader := bufio.NewReader(conn)
	if _, err := reader.ReadString('\n'); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, line); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, reader)
	return err
}

// connectAgainAndAgain makes a batch of connections, one after the other, each with a line and its
// answer.
func (w *way) connectAgainAndAgain(t *testing.T, port uint16) {
	t.Helper()
	var failed []error
	for range batchSize {
		if err := w.exchangeLines(t, port); err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) > 0 {
		t.Fatalf("%d of %d connections failed, such as: %v", len(failed), batchSize, failed[0])
	}
}

func (w *way) exchangeLines(t *testing.T, port uint16) (err error) {
	conn, err := w.dial(t.Context(), port)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := io.WriteString(conn, line); err != nil {
		return err
	}
	if got, err := bufio.NewReader(conn).ReadString('\n'); err != nil || got != line {
		return fmt.Errorf("sent %q, got %q: %w", line, got, err)
	}
	return nil
}

// checkSources checks that every server saw the source address that it should.
func (w *way) checkSources(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for e := range w.arrived {
		if e.client.Addr() != w.source() {
			t.Errorf("server %s saw %s, want %s", e.server, e.client, w.source())
		}
	}
}
