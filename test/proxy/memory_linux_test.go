package proxy

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// Bounds of what clients may make Envoy keep, in MB, for all clients of a test together.
const mostKept = 24

// TestSlowReaders checks that clients that read nothing of what a server sends do not fill the
// proxy's memory.
func TestSlowReaders(t *testing.T) {
	t.Parallel()
	const readers = 200
	p := envoyPod(t, interception.ModeRedirect, nil)
	w := &way{direction: inbound4, pod: p, system: interception.SystemRedirect}
	var blocked sync.WaitGroup
	blocked.Add(readers)
	listener := w.listen(t, slowPort)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				flood(conn)
				blocked.Done()
			}()
		}
	}()
	before := p.allocated(t)
	for range readers {
		w.mustDial(t, slowPort)
	}
	blocked.Wait()
	if kept := p.allocated(t) - before; kept > mostKept {
		t.Errorf("%d clients that read nothing made Envoy keep %d MB, want at most %d", readers, kept, mostKept)
	} else {
		t.Logf("%d clients that read nothing made Envoy keep %d MB", readers, kept)
	}
}

const slowPort uint16 = 9100

// flood writes until nothing more is accepted for a while.
func flood(conn net.Conn) {
	piece := make([]byte, 1<<16)
	_, _ = rand.Read(piece)
	for {
		_ = conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
		if _, err := conn.Write(piece); err != nil {
			return // the connection stays open until the test's end
		}
	}
}

// allocated returns Envoy's memory in use, in MB.
func (p *pod) allocated(t *testing.T) int {
	t.Helper()
	status, text := get(client(dialer(p.Pod.Dial)), netip.MustParseAddr("127.0.0.1"), interception.AdminPort, "/memory")
	var memory struct {
		Allocated int `json:"allocated,string"`
	}
	if err := json.Unmarshal([]byte(text), &memory); status != http.StatusOK || err != nil {
		t.Fatalf("no memory: %d %.300s", status, text)
	}
	return memory.Allocated >> 20
}

// TestHTTPLimits checks that a client cannot make Envoy keep endless headers or streams on a port
// where it detects HTTP.
func TestHTTPLimits(t *testing.T) {
	t.Parallel()
	p := envoyPod(t, interception.ModeRedirect, lookForHTTP)
	w := &way{direction: inbound4, pod: p, system: interception.SystemRedirect}
	w.serveHTTP(t, limitsPort, &http.Server{Handler: http.HandlerFunc(tell), Protocols: bothVersions()})
	t.Run("a long path", func(t *testing.T) { checkLongPath(t, w) })
	t.Run("headers without an end", func(t *testing.T) { checkEndlessHeaders(t, w) })
	t.Run("streams without an end", func(t *testing.T) { checkEndlessStreams(t, w) })
	t.Run("others are served", func(t *testing.T) {
		if status, body := get(client(fromOutside(p.Lab)), netns.PodIPv4, limitsPort, "/"); status != http.StatusOK {
			t.Errorf("status %d: %s", status, body)
		}
	})
}

const (
	limitsPort  uint16 = 9080
	streamsPort uint16 = 9081
)

func bothVersions() *http.Protocols {
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	return &both
}

// checkEndlessHeaders sends 20 requests whose headers grow to 8 MB and do not
// end.
func checkEndlessHeaders(t *testing.T, w *way) {
	const clients, headers = 20, 128 // of 64 KiB
	before := w.pod.allocated(t)
	header := []byte("X-Long: " + strings.Repeat("a", 1<<16) + "\r\n")
	var refused atomic.Int32
	var sending sync.WaitGroup
	for range clients {
		conn := w.mustDial(t, limitsPort)
		sending.Go(func() {
			_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n")
			for i := 0; i < headers && err == nil; i++ {
				_, err = conn.Write(header)
			}
			if err != nil {
				refused.Add(1)
			}
		})
	}
	sending.Wait()
	kept := w.pod.allocated(t) - before
	t.Logf("%d requests with headers of %d MB made Envoy keep %d MB; %d were refused",
		clients, headers>>4, kept, refused.Load())
	if kept > mostKept {
		t.Errorf("want at most %d MB", mostKept)
	}
}

// checkEndlessStreams opens 20,000 requests on one connection of HTTP/2, none
// of which ends.
func checkEndlessStreams(t *testing.T, w *way) {
	const streams, mostAllowed = 20_000, 1000
	w.serve(t, streamsPort, func(conn *net.TCPConn) error {
		if err := http2.NewFramer(conn, conn).WriteSettings(); err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, conn) // until the proxy closes or resets the connection
		return nil
	})
	before := w.pod.allocated(t)
	conn := w.mustDial(t, streamsPort)
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	announced := make(chan announcedLimits, 1)
	go func() { announced <- readLimits(conn) }()
	err := openStreams(conn, streams)
	limits := <-announced // after the answer to a ping that followed the streams, or when the time is over
	kept := w.pod.allocated(t) - before
	t.Logf("%d streams on a connection (%v) made Envoy keep %d MB; it allows %d and refused %d",
		streams, err, kept, limits.streams, limits.refused)
	if kept > mostKept {
		t.Errorf("want at most %d MB", mostKept)
	}
	if limits.streams == 0 || limits.streams > mostAllowed {
		t.Errorf("Envoy allows %d streams on a connection, want 1 to %d", limits.streams, mostAllowed)
	}
}

// openStreams sends requests without an end, and a ping.
func openStreams(conn io.Writer, streams uint32) error {
	headers, err := headerBlock()
	if err != nil {
		return err
	}
	err = openHTTP2(conn)
	framer := http2.NewFramer(conn, nil)
	for n := uint32(0); n < streams && err == nil; n++ {
		err = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*n + 1, BlockFragment: headers, EndHeaders: true})
	}
	return errors.Join(err, framer.WritePing(false, [8]byte{}))
}

// openHTTP2 returns what an HTTP/2 client sends first.
func openHTTP2(conn io.Writer) error {
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return err
	}
	return http2.NewFramer(conn, nil).WriteSettings()
}

// headerBlock returns a POST whose body is still to come. It can be sent repeatedly: it does not
// change the state of the header compression.
func headerBlock() ([]byte, error) {
	var headers bytes.Buffer
	encoder := hpack.NewEncoder(&headers)
	for _, field := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/"},
		{Name: ":authority", Value: "a", Sensitive: true},
	} {
		if err := encoder.WriteField(field); err != nil {
			return nil, err
		}
	}
	return headers.Bytes(), nil
}

// announcedLimits is what the proxy announces on an HTTP/2 connection.
type announcedLimits struct{ streams, refused uint32 }

// readLimits reads until the proxy has answered a ping.
func readLimits(conn io.Reader) (limits announcedLimits) {
	framer := http2.NewFramer(nil, conn)
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return limits
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if most, ok := f.Value(http2.SettingMaxConcurrentStreams); ok {
				limits.streams = most
			}
		case *http2.RSTStreamFrame:
			limits.refused++
		case *http2.PingFrame:
			if f.IsAck() {
				return limits
			}
		}
	}
}

// checkLongPath checks that a long path does not make a log line as long. Envoy does not take a
// much longer one for HTTP, and forwards it unread.
func checkLongPath(t *testing.T, w *way) {
	const most = 4 << 10
	path := "/" + strings.Repeat("p", 6<<10)
	if status, body := get(client(fromOutside(w.pod.Lab)), netns.PodIPv4, limitsPort, path); status != http.StatusOK {
		t.Fatalf("status %d: %.100s", status, body)
	}
	within(t, "the request is in the log, cut", &output{}, func() bool {
		for _, text := range w.pod.Proxy.Output() {
			if strings.Contains(text, `"/pppp`) {
				if len(text) > most {
					t.Fatalf("a path of %d bytes makes a log line of %d, want at most %d", len(path), len(text), most)
				}
				return true
			}
		}
		return false
	})
}
