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
)

// transferred is how many bytes go either way at once.
const transferred = 16 << 20

// transferTrial sends much in both directions at the same time, each with a
// checksum, and each end closes when it has sent all.
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
			w.serve(t, bytesPort, func(conn *net.TCPConn) { heard <- swap(conn, "server") })
			conn, err := w.dial(t.Context(), bytesPort)
			if err != nil {
				return []string{"client: " + errno(err)}
			}
			defer conn.Close()
			client := swap(conn, "client")
			_ = conn.Close()
			return []string{"server: " + <-heard, "client: " + client}
		},
	}
}

// content is what an end sends: the same each time.
func content(who string) io.Reader {
	return io.LimitReader(rand.NewChaCha8(sha256.Sum256([]byte(who))), transferred)
}

// swap sends all that an end has to send, and says what it got.
func swap(conn *net.TCPConn, who string) string {
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, content(who))
		sent <- errors.Join(err, conn.CloseWrite())
	}()
	sum := sha256.New()
	count, err := io.Copy(sum, conn)
	got := fmt.Sprintf("%d bytes with sha256 %x", count, sum.Sum(nil))
	if err := errors.Join(err, <-sent); err != nil {
		got += ", " + errno(err)
	}
	return got
}

// truncated is a response without a length: its end is the connection's, so
// that a reset is all that tells half of it from the whole.
const truncated = "HTTP/1.1 200 OK\r\n\r\nthe first half, "

// truncatedTrials have curl ask for such a response.
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

// watched gathers what a program prints, and tells when it has printed
// something. Only os/exec writes to it.
type watched struct {
	text  bytes.Buffer
	until string
	found chan struct{}
}

// Write takes what the program printed.
func (o *watched) Write(p []byte) (int, error) {
	was := bytes.Contains(o.text.Bytes(), []byte(o.until))
	n, err := o.text.Write(p)
	if !was && bytes.Contains(o.text.Bytes(), []byte(o.until)) {
		close(o.found)
	}
	return n, err
}
