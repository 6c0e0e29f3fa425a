package load_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/webhook"
)

const (
	// slowSenders is how many connections withhold the last byte of their body.
	slowSenders = 1000
	// atWork is how many of them connect at once, and pause is between the parts that each sends.
	// The test is about the memory that they take, not the processors.
	atWork = 4
	pause  = 250 * time.Millisecond
	// heldBody is the largest body that the webhook accepts.
	heldBody = 7 << 20
	// honest is how many connections of API servers send reviews meanwhile, and slowTime for how
	// long.
	honest   = 8
	slowTime = 10 * time.Second
)

// TestSlowSenders checks that connections that each withhold the last byte of 7 MiB leave the
// server within its container's memory, and that reviews are answered all the while. Those that are
// cut off connect again.
func TestSlowSenders(t *testing.T) {
	container := deployed(t)
	server := startServer(t, append(container.Env, open))
	ctx, stop := context.WithCancel(t.Context())
	var senders sync.WaitGroup
	var sent, connected atomic.Int64
	turns := make(chan struct{}, atWork)
	for range slowSenders {
		senders.Go(func() {
			for ctx.Err() == nil {
				holdBack(ctx, server.address, turns, &sent, &connected)
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
				}
			}
		})
	}
	defer senders.Wait()
	defer stop()
	for deadline := time.Now().Add(2 * time.Minute); connected.Load() < slowSenders; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d connections in two minutes", connected.Load(), slowSenders)
		}
	}

	clients := make([]*client, honest)
	for i := range clients {
		clients[i] = newClient(t, server, i)
	}
	start := time.Now()
	all(t, "be answered", clients, func(c *client) error {
		for time.Since(start) < slowTime {
			if err := c.review(); err != nil {
				return err
			}
		}
		return nil
	})
	report(t, fmt.Sprintf("beside %d slow senders", slowSenders), clients, time.Since(start))
	stop()
	peak := server.peakMemory(t)
	t.Logf("%d connections in all sent %d MiB, and the server took %d MiB at the most", connected.Load(), sent.Load()>>20, peak>>20)
	if limit := container.Resources.Limits.Memory().Value(); peak > limit {
		t.Errorf("the server took %d bytes, and its container may have %d", peak, limit)
	}
}

// holdBack sends a body without its last byte, and waits until it is cut off.
func holdBack(ctx context.Context, address string, turns chan struct{}, sent, connected *atomic.Int64) {
	turns <- struct{}{}
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}}
	connection, err := dialer.DialContext(ctx, "tcp", address)
	<-turns
	if err != nil {
		return
	}
	defer connection.Close()
	stop := context.AfterFunc(ctx, func() { _ = connection.Close() })
	defer stop()
	connected.Add(1)
	fmt.Fprintf(connection, "POST %s HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		webhook.Path, heldBody)
	chunk := slices.Repeat([]byte{' '}, 64<<10)
	for left := heldBody - 1; left > 0; {
		n, err := connection.Write(chunk[:min(left, len(chunk))])
		sent.Add(int64(n))
		if err != nil {
			break
		}
		left -= n
		time.Sleep(pause)
	}
	_, _ = io.Copy(io.Discard, connection)
}
