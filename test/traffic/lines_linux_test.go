package traffic

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// linePorts are of protocols whose clients or servers may confuse a proxy that inspects
// connections.
var linePorts = []uint16{21, 25, 80, 443, 2003, 3306, 5432, 6379, 8080, 9000}

// linesPerPort is enough to find a proxy that loses one in a hundred.
const linesPerPort = 30

// lineTrials send a line on each of 300 connections, and end them either at once or, like nc -N,
// after the server has ended its direction.
func lineTrials() []trial {
	var want []string
	for _, port := range linePorts {
		want = append(want, fmt.Sprintf("port %d: %d of %d lines", port, linesPerPort, linesPerPort))
	}
	closes := func(conn *net.TCPConn) error { return conn.Close() }
	waits := func(conn *net.TCPConn) error { // like nc -N
		err := conn.CloseWrite()
		answer, readErr := io.ReadAll(conn)
		if readErr == nil && len(answer) > 0 {
			readErr = fmt.Errorf("the server answered %q", answer)
		}
		return errors.Join(err, readErr, conn.Close())
	}
	return []trial{
		{name: "300 clients write a line and close", want: want, talk: lines(closes)},
		{name: "300 clients write a line, half-close and wait", want: want, talk: lines(waits)},
	}
}

// lines runs ten servers, and clients of each, one after the other.
func lines(end func(*net.TCPConn) error) func(*testing.T, *way) []string {
	return func(t *testing.T, w *way) []string {
		seen := make([]string, len(linePorts))
		var talking sync.WaitGroup
		for i, port := range linePorts {
			arrived := make(chan string, 2*linesPerPort)
			w.serve(t, port, func(conn *net.TCPConn) {
				all := bufio.NewScanner(conn)
				for all.Scan() {
					arrived <- all.Text()
				}
			})
			talking.Go(func() {
				for number := range linesPerPort {
					if err := w.sendLine(t, port, number, end); err != nil {
						seen[i] = fmt.Sprintf("port %d: client: %s", port, errno(err))
						return
					}
				}
				seen[i] = fmt.Sprintf("port %d: %d of %d lines", port, countLines(arrived), linesPerPort)
			})
		}
		talking.Wait()
		return seen
	}
}

func (w *way) sendLine(t *testing.T, port uint16, number int, end func(*net.TCPConn) error) error {
	conn, err := w.dial(t.Context(), port)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(conn, "line %d\n", number)
	return errors.Join(err, end(conn))
}

// countLines waits for every line once, and gives up when no more arrive.
func countLines(arrived <-chan string) int {
	different := map[string]bool{}
	for len(different) < linesPerPort {
		select {
		case line := <-arrived:
			different[line] = true
		case <-time.After(arrivalTime):
			return len(different)
		}
	}
	return len(different)
}

// bytesPort is where the servers of byteTrials listen.
const bytesPort uint16 = 8080

// byteTrials send bytes that a proxy for HTTP would change, refuse or answer itself. Every byte has
// to arrive, in both directions.
func byteTrials() []trial {
	const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	var trials []trial
	for _, exchange := range []struct{ name, question, answer string }{
		{"two Host lines", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"},
		{"a bare CR in a header", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r2\r\n\r\n",
			"HTTP/1.1 200 OK\r\nX: 1\r2\r\nContent-Length: 0\r\n\r\n"},
		{"trailers in mixed case", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Trailer: Yes\r\n\r\n",
			"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2;a=b\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n"},
		{"a user in the target", "GET http://u:p@x/ HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nhi"},
		{"a method of one's own", "BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\n\r\n"},
		{"100 continue twice", "PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
			"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Again\r\nX-y: Z\r\n\r\nHTTP/1.1 204 None\r\n\r\n"},
		{"HTTP/0.9", "GET /\r\n", "just text"},
		{"a header of 100 kB", "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 100_000) + "\r\n\r\n", "HTTP/1.1 431 No\r\n\r\n"},
		// The server does not answer, as if it were frozen: the client has to notice.
		{"a PING of HTTP/2 that the server leaves unanswered", http2Preface + "\x00\x00\x08\x06\x00\x00\x00\x00\x00pingpong", ""},
		{"a PING of HTTP/2 that the server answers wrongly", http2Preface + "\x00\x00\x08\x06\x00\x00\x00\x00\x00pingpong",
			"\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x08\x06\x01\x00\x00\x00\x00gnopgnip"},
		{"half a TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "\x15\x03\x01\x00\x02\x02\x28"},
		{"a PROXY header", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "thanks"},
		{"one byte", "\x00", "\xff"},
	} {
		trials = append(trials, trial{
			name: exchange.name,
			want: []string{fmt.Sprintf("server: %.300q", exchange.question), fmt.Sprintf("client: %.300q", exchange.answer)},
			talk: func(t *testing.T, w *way) []string { return w.exchange(t, exchange.question, exchange.answer) },
		})
	}
	return trials
}

// exchange lets a client send something and a server answer once it has received all of it. Then
// the server closes the connection.
func (w *way) exchange(t *testing.T, question, answer string) []string {
	heard := make(chan string, 1)
	w.serve(t, bytesPort, func(conn *net.TCPConn) {
		_ = conn.SetDeadline(time.Now().Add(arrivalTime))
		got := make([]byte, len(question))
		n, _ := io.ReadFull(conn, got)
		_, err := io.WriteString(conn, answer)
		err = errors.Join(err, conn.CloseWrite())
		more, readErr := io.ReadAll(conn)
		heard <- describe(append(got[:n], more...), errors.Join(err, readErr))
	})
	conn, err := w.dial(t.Context(), bytesPort)
	if err != nil {
		return []string{"client: " + errno(err)}
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(arrivalTime))
	_, err = io.WriteString(conn, question)
	got, readErr := io.ReadAll(conn)
	client := describe(got, errors.Join(err, readErr))
	_ = conn.Close()
	return []string{"server: " + <-heard, "client: " + client}
}

// describe prints the first bytes, and the error of their connection.
func describe(got []byte, err error) string {
	shown := fmt.Sprintf("%.300q", got)
	if err != nil {
		shown += ", " + errno(err)
	}
	return shown
}

// serverFirstTrial runs servers that speak first, and a client that waits for them. A proxy that
// waits for the client would delay the greeting: for ever, or for a time that Envoy counts, see
// checkDetection.
func serverFirstTrial() trial {
	const greeting = "220 a server that speaks first\r\n"
	var want []string
	for _, port := range linePorts {
		want = append(want, fmt.Sprintf("port %d: client: %q", port, greeting))
	}
	return trial{name: "the server speaks first", want: want, talk: func(t *testing.T, w *way) []string {
		var got []string
		for _, port := range linePorts {
			w.serve(t, port, func(conn *net.TCPConn) {
				_, _ = io.WriteString(conn, greeting)
				_, _ = io.Copy(io.Discard, conn)
			})
			conn, err := w.dial(t.Context(), port)
			if err != nil {
				got = append(got, fmt.Sprintf("port %d: client: %s", port, errno(err)))
				continue
			}
			line, err := bufio.NewReader(conn).ReadString('\n')
			got = append(got, fmt.Sprintf("port %d: client: %s", port, describe([]byte(line), err)))
			_ = conn.Close()
		}
		return got
	}}
}
