package traffic

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// transferred is the number of bytes in each direction.
const transferred = 16 << 20

// transferTrial sends much in both directions at the same time, each with a checksum. The client
// half-closes after it has sent everything, and the server closes after it has received everything.
func transferTrial() trial {
	sums := map[string]string{}
	for _, who := range []string{"client", "server"} {
		sum := sha256.New()
		_, _ = io.Copy(sum, content(who))
		sums[who] = fmt.Sprintf("%d bytes with sha256 %x", transferred, sum.Sum(nil))
	}
	return trial{
		name: "16 MB both ways at once",
		want: []string{"server: " + sums["client"], "client: " + sums["server"]},
		talk: func(t *testing.T, w *way) []string {
			heard := make(chan string, 1)
			w.serve(t, bytesPort, func(conn *net.TCPConn) { heard <- swap(conn, "server", func() error { return nil }) })
			conn, err := w.dial(t.Context(), bytesPort)
			if err != nil {
				return []string{"client: " + errno(err)}
			}
			defer conn.Close()
			client := swap(conn, "client", conn.CloseWrite)
			_ = conn.Close()
			return []string{"server: " + <-heard, "client: " + client}
		},
	}
}

// content returns what an end sends: the same each time.
func content(who string) io.Reader {
	return io.LimitReader(rand.NewChaCha8(sha256.Sum256([]byte(who))), transferred)
}

// swap sends everything that an end has to send, and returns what it received meanwhile.
func swap(conn *net.TCPConn, who string, sentAll func() error) string {
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, content(who))
		sent <- errors.Join(err, sentAll())
	}()
	sum := sha256.New()
	count, err := io.Copy(sum, conn)
	got := fmt.Sprintf("%d bytes with sha256 %x", count, sum.Sum(nil))
	if err := errors.Join(err, <-sent); err != nil {
		got += ", " + errno(err)
	}
	return got
}

// halfClosedTrials let one end send more than the other reads, so that the proxy has to hold some
// of it, and then its FIN. The other end sends a little and its FIN, and only then reads.
func halfClosedTrials() []trial {
	return []trial{
		{
			name: "both half-close, the client has much under way",
			want: []string{"client is told: ok", "server gets: all of it"},
			talk: func(t *testing.T, w *way) []string {
				return w.halfClose(t, "client", "server", "upstream_cx_tx_bytes_buffered")
			},
		},
		{
			name: "both half-close, the server has much under way",
			want: []string{"server is told: ok", "client gets: all of it"},
			talk: func(t *testing.T, w *way) []string {
				return w.halfClose(t, "server", "client", "downstream_cx_tx_bytes_buffered")
			},
		},
	}
}

// Of what fits between two ends, some is sent at once and the rest in pieces, until the proxy
// cannot forward the last of them. It must hold so much that the kernel has no room for it, and
// less than the limit at which it stops reading.
const (
	enough = 12 << 10
	atOnce = 64 << 10
	piece  = 8 << 10
	most   = 16 << 20
)

// settleTime is how long the proxy takes to read what was sent. If it takes longer, a trial shows
// less.
const settleTime = 50 * time.Millisecond

func (w *way) halfClose(t *testing.T, much, little, buffered string) []string {
	listener := w.listen(t, bytesPort)
	defer listener.Close()
	client, err := w.dial(t.Context(), bytesPort)
	if err != nil {
		return []string{"client: " + errno(err)}
	}
	defer client.Close()
	server, err := listener.AcceptTCP()
	if err != nil {
		return []string{"server: " + errno(err)}
	}
	defer server.Close()
	ends := map[string]*net.TCPConn{"client": client, "server": server}

	sent := 0
	send := func(count int) {
		n, writeErr := ends[much].Write(make([]byte, count))
		sent, err = sent+n, errors.Join(err, writeErr)
	}
	send(atOnce)
	for w.mode != direct && err == nil && sent < most {
		if time.Sleep(settleTime / 10); w.counter(t, buffered) >= enough {
			// Once more: the proxy may be about to forward it.
			if time.Sleep(settleTime); w.counter(t, buffered) >= enough {
				break
			}
		}
		send(piece)
	}
	if sent >= most {
		t.Errorf("the proxy passed on all of %d bytes to an end that does not read", sent)
	}
	toldErr := errors.Join(err, ends[much].CloseWrite())
	time.Sleep(settleTime)
	_, err = io.WriteString(ends[little], "a little")
	err = errors.Join(err, ends[little].CloseWrite(), ends[little].SetDeadline(time.Now().Add(arrivalTime)))
	time.Sleep(settleTime)
	count, readErr := io.Copy(io.Discard, ends[little])
	got := "all of it"
	if count < int64(sent) {
		got = "less"
	}
	if err := errors.Join(err, readErr); err != nil {
		got += ", " + errno(err)
	}
	told := "ok"
	_, readErr = io.Copy(io.Discard, ends[much])
	if err := errors.Join(toldErr, readErr); err != nil {
		told = errno(err)
	}
	return []string{much + " is told: " + told, little + " gets: " + got}
}

// truncated is a response without a length. It ends with its connection, so that only a reset tells
// half of it from the whole.
const truncated = "HTTP/1.1 200 OK\r\n\r\nthe first half, "

// truncatedTrials request such a response with curl.
func truncatedTrials() []trial {
	response := func(name string, end func(*net.TCPConn) error, want ...string) trial {
		return trial{name: name, want: want, talk: func(t *testing.T, w *way) []string {
			read := make(chan struct{}) // curl has printed the first half
			w.serve(t, bytesPort, func(conn *net.TCPConn) {
				request := make([]byte, 4096)
				if _, err := conn.Read(request); err != nil {
					return
				}
				if _, err := io.WriteString(conn, truncated); err != nil {
					return
				}
				select {
				case <-read:
				case <-t.Context().Done():
				}
				_ = end(conn)
			})
			ctx, cancel := context.WithTimeout(t.Context(), answerTime)
			defer cancel()
			cmd := app.command(ctx, w.clientHost(), "curl", "--silent", "--show-error", "--no-buffer", w.url("http", bytesPort))
			printed := &watched{until: "the first half, ", found: read}
			cmd.Stdout = printed
			err := cmd.Run()
			return []string{fmt.Sprintf("curl printed %q", printed.text.String()), "curl ended with " + fmt.Sprint(err)}
		}}
	}
	return []trial{
		response("a response without length whose server resets",
			func(conn *net.TCPConn) error { return errors.Join(conn.SetLinger(0), conn.Close()) },
			`curl printed "the first half, "`, "curl ended with exit status 56"),
		response("a response without length whose server closes",
			func(conn *net.TCPConn) error {
				_, err := io.WriteString(conn, "the second half")
				return errors.Join(err, conn.Close())
			},
			`curl printed "the first half, the second half"`, "curl ended with <nil>"),
	}
}

// watched collects what a program prints, and signals the first output. Only os/exec writes to it.
type watched struct {
	text  bytes.Buffer
	until string
	found chan struct{}
}

// Write appends what the program printed.
func (o *watched) Write(p []byte) (int, error) {
	was := bytes.Contains(o.text.Bytes(), []byte(o.until))
	n, err := o.text.Write(p)
	if !was && bytes.Contains(o.text.Bytes(), []byte(o.until)) {
		close(o.found)
	}
	return n, err
}
