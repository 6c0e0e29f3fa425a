package traffic

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// endings are conversations, step by step, that end in every way that a TCP connection can. Each
// step waits for the one before, at either end. A step also states what its end sees without a
// proxy.
//
//	client connects           or why it cannot
//	server writes N           bytes
//	server reads N            bytes, exactly
//	server reads all: N, EOF  what comes until the end, and what that was
//	client shuts down         sends its FIN, and may go on reading
//	client closes             sends its FIN, or a reset if bytes are unread
//	client resets             closes with a reset (SO_LINGER 0)
//	client writes until EPIPE goes on writing until it learns that nobody reads
var endings = []struct {
	name, script string
	times        int // more often if the proxy's answer varies
}{
	{"the client closes", `
		client connects
		client writes 5
		server reads 5
		client closes
		server reads all: 0, EOF
		server closes`, 1},
	{"the client writes and closes at once", `
		client connects
		client writes 5
		client closes
		server reads all: 5, EOF
		server closes`, 1},
	{"the client connects and closes at once", `
		client connects
		client closes
		server reads all: 0, EOF
		server closes`, 1},
	{"the server closes", `
		client connects
		server writes 5
		client reads 5
		server closes
		client reads all: 0, EOF
		client closes`, 1},
	{"the server writes and closes at once", `
		client connects
		server writes 5
		server closes
		client reads all: 5, EOF
		client closes`, 1},
	{"the server closes at once", `
		client connects
		server closes
		client reads all: 0, EOF
		client closes`, 1},
	{"the client half-closes, and the server answers", `
		client connects
		client writes 5
		client shuts down
		server reads all: 5, EOF
		server writes 7
		server closes
		client reads all: 7, EOF
		client closes`, 1},
	{"the client half-closes first of all, and the server answers", `
		client connects
		client shuts down
		server reads all: 0, EOF
		server writes 7
		server closes
		client reads all: 7, EOF
		client closes`, 1},
	{"the server half-closes, and the client goes on", `
		client connects
		server writes 7
		server shuts down
		client reads all: 7, EOF
		client writes 5
		client writes 100000
		client closes
		server reads all: 100005, EOF
		server closes`, 1},
	{"the client half-closes, and then closes", `
		client connects
		client writes 5
		client shuts down
		server reads all: 5, EOF
		client closes
		server writes until EPIPE`, 1},
	{"the client closes, and the server goes on", `
		client connects
		client writes 5
		server reads 5
		client closes
		server reads all: 0, EOF
		server writes until EPIPE`, 1},
	{"the server closes, and the client goes on", `
		client connects
		client writes 5
		server reads 5
		server closes
		client reads all: 0, EOF
		client writes until EPIPE`, 1},
	{"the server half-closes, and then resets", `
		client connects
		server writes 7
		server shuts down
		client reads all: 7, EOF
		server resets
		client writes until EPIPE`, 1},
	{"the client half-closes, and then resets", `
		client connects
		client writes 5
		client shuts down
		server reads all: 5, EOF
		client resets
		server writes until EPIPE`, 1},
	{"the client half-closes, and the server resets", `
		client connects
		client writes 5
		client shuts down
		server reads all: 5, EOF
		server resets
		client reads all: 0, ECONNRESET`, 1},
	{"the server half-closes, and the client resets", `
		client connects
		server writes 7
		server shuts down
		client reads all: 7, EOF
		client resets
		server reads all: 0, ECONNRESET`, 1},
	{"the client resets", `
		client connects
		client writes 5
		server reads 5
		client resets
		server reads all: 0, ECONNRESET`, 1},
	{"the client resets, and the server writes", `
		client connects
		client writes 5
		server reads 5
		client resets
		server writes until ECONNRESET or EPIPE`, 1},
	{"the server resets", `
		client connects
		client writes 5
		server reads 5
		server writes 7
		client reads 7
		server resets
		client reads all: 0, ECONNRESET`, 1},
	{"the server resets, and the client writes", `
		client connects
		client writes 5
		server reads 5
		server resets
		client writes until ECONNRESET or EPIPE`, 1},
	{"the server resets at once", `
		client connects
		server resets
		client reads all: 0, ECONNRESET`, chance},
	{"the client writes and resets at once", `
		client connects
		client writes 5
		client resets
		server reads all: 5, ECONNRESET`, chance},
	{"the server writes and resets at once", `
		client connects
		client writes 5
		server reads 5
		server writes 7
		server resets
		client reads all: 7, ECONNRESET`, chance},
	{"the server closes with bytes unread", `
		client connects
		client writes 100000
		server reads 5
		server closes
		client reads all: 0, ECONNRESET`, 1},
	{"the server answers, and closes with bytes unread", `
		client connects
		client writes 100000
		server reads 5
		server writes 7
		client reads 7
		server closes
		client reads all: 0, ECONNRESET`, 1},
	{"the server answers, and closes at once with bytes unread", `
		client connects
		client writes 100000
		server reads 5
		server writes 7
		server closes
		client reads all: 7, ECONNRESET`, chance},
	{"the client closes with bytes unread", `
		client connects
		server writes 100000
		client reads 5
		client closes
		server reads all: 0, ECONNRESET`, 1},
	{"the client closes while much is under way", `
		client connects
		client writes 300000
		client closes
		server reads all: 300000, EOF
		server closes`, 1},
	{"the server closes while much is under way", `
		client connects
		server writes 300000
		server closes
		client reads all: 300000, EOF
		client closes`, 1},
	{"the server half-closes while much is under way, and the client answers", `
		client connects
		server writes 300000
		server shuts down
		client reads all: 300000, EOF
		client writes 300000
		client closes
		server reads all: 300000, EOF
		server closes`, 1},
	{refused, `
		client connects: ECONNREFUSED`, 1},
}

// chance is how often a conversation runs whose end may come before the proxy has handled what went
// before.
const chance = 20

const refused = "nobody listens"

// endingsPort is the port of these servers, and closedPort one without a server.
const (
	endingsPort uint16 = 5001
	closedPort  uint16 = 5002
)

// endingTrials returns a trial for each.
func endingTrials() []trial {
	var trials []trial
	for _, ending := range endings {
		var want []string
		for line := range strings.Lines(ending.script) {
			if line = strings.TrimSpace(line); line != "" {
				want = append(want, line)
			}
		}
		made := trial{name: ending.name, want: want, times: ending.times, uncarried: ending.name == refused}
		made.talk = func(t *testing.T, w *way) []string {
			p := &play{way: w, port: endingsPort}
			if ending.name == refused {
				p.port = closedPort
			} else {
				p.listener = w.listen(t, endingsPort)
			}
			defer p.end()
			var got []string
			for _, line := range want {
				got = append(got, p.step(t, line))
			}
			return got
		}
		trials = append(trials, made)
	}
	return trials
}

// play is a running conversation.
type play struct {
	*way
	port           uint16
	listener       *net.TCPListener
	client, server *net.TCPConn
}

func (p *play) end() {
	for _, conn := range []*net.TCPConn{p.client, p.server} {
		if conn != nil {
			_ = conn.Close()
		}
	}
	if p.listener != nil {
		_ = p.listener.Close()
	}
}

// step carries out a line, and returns the line with what was seen.
func (p *play) step(t *testing.T, line string) string {
	end, what, _ := strings.Cut(line, " ")
	if what == "connects" || strings.HasPrefix(what, "connects:") {
		var err error
		if p.client, err = p.dial(t.Context(), p.port); err != nil {
			return end + " connects: " + errno(err)
		}
		if what != "connects" { // it should not have connected
			return end + " connects, reads all: " + readAll(p.client)
		}
		return line
	}
	if p.client == nil {
		return line + ": not connected"
	}
	conn := p.client
	if end == "server" {
		var err error
		if conn, err = p.accepted(); err != nil {
			return end + ": no connection arrived"
		}
	}
	done, _, _ := strings.Cut(what, ": ")
	return end + " " + act(t, conn, done)
}

// act carries out a step at its end, and returns it with what was seen.
func act(t *testing.T, conn *net.TCPConn, what string) string {
	var count int
	switch {
	case scan(what, "writes %d", &count):
		_, err := conn.Write(make([]byte, count))
		return failing(what, err)
	case what == "reads all":
		return "reads all: " + readAll(conn)
	case scan(what, "reads %d", &count):
		got, err := io.ReadFull(conn, make([]byte, count))
		return failing(fmt.Sprintf("reads %d", got), err)
	case what == "shuts down":
		return failing(what, conn.CloseWrite())
	case what == "closes":
		return failing(what, conn.Close())
	case what == "resets":
		return failing(what, errors.Join(conn.SetLinger(0), conn.Close()))
	case strings.HasPrefix(what, "writes until "):
		end := writeUntil(conn)
		if wanted := strings.TrimPrefix(what, "writes until "); strings.Contains(wanted, end) {
			end = wanted // either may happen
		}
		return "writes until " + end
	default:
		t.Fatalf("%q is no step", what)
		return ""
	}
}

func scan(text, format string, into *int) bool {
	n, err := fmt.Sscanf(text, format, into)
	return err == nil && n == 1
}

// failing returns a step with its error.
func failing(what string, err error) string {
	if err != nil {
		return what + ": " + errno(err)
	}
	return what
}

// accepted returns the connection at the server's end.
func (p *play) accepted() (*net.TCPConn, error) {
	if p.server != nil {
		return p.server, nil
	}
	if err := p.listener.SetDeadline(time.Now().Add(arrivalTime)); err != nil {
		return nil, err
	}
	conn, err := p.listener.AcceptTCP()
	if err != nil {
		return nil, err
	}
	p.server = conn
	return conn, conn.SetDeadline(time.Now().Add(arrivalTime))
}

// arrivalTime is how long a connection, or its end, may take to arrive. It is waited for if a proxy
// loses them.
const arrivalTime = 10 * time.Second

// readAll reads to the end of a connection, and returns what came.
func readAll(conn *net.TCPConn) string {
	_ = conn.SetDeadline(time.Now().Add(arrivalTime))
	var got bytes.Buffer
	count, err := io.Copy(&got, conn)
	if err != nil {
		return fmt.Sprintf("%d, %s", count, errno(err))
	}
	return fmt.Sprintf("%d, EOF", count)
}

// writeUntil writes until there is an error, and names it.
func writeUntil(conn *net.TCPConn) string {
	for deadline := time.Now().Add(arrivalTime); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err := conn.Write([]byte{0}); err != nil {
			return errno(err)
		}
	}
	return "nothing"
}
