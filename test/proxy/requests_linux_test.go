package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	envoyconfig "github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/test/netns"
)

// Ports of HTTP servers.
const (
	methodsPort uint16 = 9082
	cancelsPort uint16 = 9083
	absentPort  uint16 = 9084 // nobody listens there
)

// TestMethods checks that a request may have any method on a port where Envoy detects HTTP, such as
// those of Vault (LIST), Varnish (BAN) and UPnP (M-SEARCH).
func TestMethods(t *testing.T) {
	t.Parallel()
	p := envoyPod(t, interception.ModeRedirect, lookForHTTP)
	w := &way{direction: inbound4, pod: p, system: interception.SystemRedirect}
	w.serveHTTP(t, methodsPort, &http.Server{Handler: http.HandlerFunc(tell)})
	for _, method := range []string{"GET", "LIST", "BAN", "PURGE", "PROPFIND", "M-SEARCH", "QUERY", "list", "X"} {
		conn := w.mustDial(t, methodsPort)
		// Envoy rejects a QUERY without a Content-Type (RFC 9110, 8.3).
		if _, err := fmt.Fprintf(conn, "%s / HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\nContent-Length: 1\r\n\r\nx", method); err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := answer.Header.Get("X-Method"); answer.StatusCode != http.StatusOK || got != method {
			t.Errorf("%s: %s, and the server saw %q", method, answer.Status, got)
		}
		_ = answer.Body.Close()
		_ = conn.Close()
		w.wantLogged(logLine{"filter_chain": "http", "method": method})
	}
	within(t, "every request is in the log as HTTP", &output{}, func() bool { return len(w.missingLines()) == 0 })
}

// TestAccessLog checks which of three requests the log has, and how much of each: one that is
// answered, one that fails at the server, and one to a port where nobody listens.
func TestAccessLog(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*config.Config)
		want   []string // code and path
	}{
		{"all", nil, []string{"200 /good?secret=1", "503 /status/503?secret=2", "503 /absent?secret=3"}},
		{"all without queries", func(cfg *config.Config) { cfg.AccessLogQueries = false },
			[]string{"200 /good", "503 /status/503", "503 /absent"}},
		{"errors", func(cfg *config.Config) { cfg.AccessLog = envoyconfig.AccessLogErrors },
			[]string{"503 /status/503?secret=2", "503 /absent?secret=3"}},
		{"none", func(cfg *config.Config) { cfg.AccessLog = envoyconfig.AccessLogNone }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := startPod(t, newPod(t, interception.ModeRedirect, lookForHTTP, test.change), map[string]string{envoy: envoyBinary(t)}, nil)
			w := &way{direction: inbound4, pod: p, system: interception.SystemRedirect}
			w.serveHTTP(t, methodsPort, &http.Server{Handler: http.HandlerFunc(tell)})
			for path, port := range map[string]uint16{
				"/good?secret=1": methodsPort, "/status/503?secret=2": methodsPort, "/absent?secret=3": absentPort,
			} {
				if code, said := get(client(fromOutside(p.Lab)), netns.PodIPv4, port, path); code == 0 {
					t.Fatalf("%s: %s", path, said)
				}
			}
			// Envoy flushes its log when it ends.
			if err := p.Proxy.Stop(syscall.SIGTERM, answerTime); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, line := range p.logLines() {
				got = append(got, line.text("response_code")+" "+line.text("path"))
			}
			slices.Sort(got)
			slices.Sort(test.want)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("the access log (-want +got):\n%s", diff)
			}
		})
	}
}

// TestCancels checks that a client may cancel its requests on an HTTP/2 connection, two of three at
// once and the third a little later, without losing the connection.
func TestCancels(t *testing.T) {
	t.Parallel()
	const requests = 900
	p := envoyPod(t, interception.ModeRedirect, lookForHTTP)
	w := &way{direction: inbound4, pod: p, system: interception.SystemRedirect}
	w.serve(t, cancelsPort, func(conn *net.TCPConn) error {
		if err := http2.NewFramer(conn, conn).WriteSettings(); err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, conn) // until the proxy ends or resets the connection
		return nil
	})
	conn := w.mustDial(t, cancelsPort)
	if err := openHTTP2(conn); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, bufio.NewReader(conn))
	headers, err := headerBlock()
	if err != nil {
		t.Fatal(err)
	}
	for n := range uint32(requests) {
		id := 2*n + 1
		err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: headers, EndHeaders: true})
		if n%3 != 0 {
			err = errors.Join(err, framer.WriteRSTStream(id, http2.ErrCodeCancel))
		} else if n >= 3 {
			err = errors.Join(err, framer.WriteRSTStream(id-6, http2.ErrCodeCancel)) // the third before
		}
		if err == nil && n%30 == 0 {
			err = ping(framer)
		}
		if err != nil {
			t.Fatalf("after %d requests that were given up: %v", n, err)
		}
	}
	if err := ping(framer); err != nil {
		t.Errorf("after all requests: %v", err)
	}
}

// ping waits for the answer to a ping.
func ping(framer *http2.Framer) error {
	if err := framer.WritePing(false, [8]byte{}); err != nil {
		return err
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case *http2.GoAwayFrame:
			return fmt.Errorf("the proxy ends the connection: %s", f)
		case *http2.PingFrame:
			if f.IsAck() {
				return nil
			}
		}
	}
}
