package proxy

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
)

// Ports of the checks' servers.
const (
	httpPort, http2Port, grpcPort, webSocketPort, tlsPort uint16 = 8080, 8081, 8082, 8083, 8443
	bodyPort, manyPort, manyHTTPPort, halfPort            uint16 = 8090, 8091, 8092, 8093
)

// serveHTTP makes the server answer requests, until the test's end.
func (w *way) serveHTTP(t *testing.T, port uint16, server *http.Server) {
	t.Helper()
	listener := w.listen(t, port)
	server.ErrorLog = log.New(io.Discard, "", 0)
	var serving sync.WaitGroup
	serving.Go(func() {
		if server.TLSConfig != nil {
			_ = server.ServeTLS(listener, "", "")
		} else {
			_ = server.Serve(listener)
		}
	})
	t.Cleanup(func() {
		_ = server.Close()
		serving.Wait()
	})
}

// transport makes the client's connections.
func (w *way) transport(t *testing.T) *http.Transport {
	t.Helper()
	transport := &http.Transport{MaxConnsPerHost: 1, DialContext: func(ctx context.Context, _, to string) (net.Conn, error) {
		at, err := netip.ParseAddrPort(to)
		if err != nil {
			return nil, err
		}
		return w.dial(ctx, at.Port())
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

func (w *way) url(port uint16, path string) string {
	return fmt.Sprintf("http://%s%s", w.server(port), path)
}

// seen is what a server sees of a request.
type seen struct {
	Method, Proto, URI, Host string
	Header                   http.Header
	Body                     string
}

// tell answers with what the server saw, and with a trailer.
func tell(answer http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		http.Error(answer, err.Error(), http.StatusBadRequest)
		return
	}
	status := http.StatusOK
	if _, err := fmt.Sscanf(request.URL.Path, "/status/%d", &status); err == nil && status >= 300 {
		answer.Header().Set("Location", "/elsewhere")
	}
	answer.Header().Set("Trailer", "X-Checksum")
	answer.Header().Set("X-Method", request.Method)
	answer.WriteHeader(status)
	if status == http.StatusNoContent {
		return
	}
	_ = json.NewEncoder(answer).Encode(seen{
		request.Method, request.Proto, request.RequestURI, request.Host, request.Header, string(body),
	})
	answer.Header().Set("X-Checksum", "42")
}

// checkHTTP1 sends requests of many kinds over one connection. The server must see each as it was
// sent, and the client each answer as the server sent it.
func checkHTTP1(t *testing.T, w *way) {
	w.serveHTTP(t, httpPort, &http.Server{Handler: http.HandlerFunc(tell)})
	transport, before := w.transport(t), w.opened()
	for i, request := range []struct{ method, path, body string }{
		{http.MethodGet, "/plain?a=b&c=%2F%20d", ""},
		{http.MethodGet, "//two//slashes/../and/./dots", ""},
		{http.MethodHead, "/head", ""},
		{http.MethodPost, "/post", "a body"},
		{http.MethodPut, "/put", strings.Repeat("a long body ", 5000)},
		{http.MethodDelete, "/delete", ""},
		{http.MethodOptions, "/options", ""},
		{"PROPFIND", "/a-method-of-WebDAV", ""},
		{http.MethodGet, "/status/204", ""},
		{http.MethodGet, "/status/302", ""},
		{http.MethodGet, "/status/404", ""},
		{http.MethodGet, "/status/503", ""},
	} {
		w.ask(t, transport, "HTTP/1.1", request.method, w.url(httpPort, request.path), request.body, i)
	}
	if n := w.opened() - before; n != 1 {
		t.Errorf("the client opened %d connections, want one for all requests", n)
	}
	w.wantLogged(logLine{"filter_chain": "http", "protocol": "HTTP/1.1", "method": "POST", "path": "/post", "response_code": 200})
	w.wantLogged(logLine{"filter_chain": "http", "method": "GET", "path": "/status/503", "response_code": 503})
}

// told is what a client sees of an answer, besides its body.
type told struct {
	Status              int
	Proto               string
	Method, Via, Server []string // headers
}

// answer returns the answer of tell to such a request.
func (s seen) answer(path string) told {
	status := http.StatusOK
	_, _ = fmt.Sscanf(path, "/status/%d", &status)
	return told{Status: status, Proto: s.Proto, Method: []string{s.Method}}
}

// ask sends a request that differs from all others.
func (w *way) ask(t *testing.T, transport http.RoundTripper, proto, method, url, body string, number int) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = http.Header{
		"User-Agent": {"suite"}, "Accept-Encoding": {"br"}, "X-Number": {fmt.Sprint(number)}, "X-Forwarded-For": {"192.0.2.1"},
		"X-Request-Id": {"mine"}, "Cookie": {"a=b"}, "Via": {"1.1 elsewhere"},
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		t.Errorf("%s %s: %v", method, url, err)
		return
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Errorf("%s %s: %v", method, url, err)
		return
	}
	want := seen{method, proto, request.URL.RequestURI(), request.URL.Host, request.Header.Clone(), body}
	if body != "" || w.addsLength(proto, method) {
		want.Header.Set("Content-Length", fmt.Sprint(len(body)))
	}
	if diff := cmp.Diff(want.answer(request.URL.Path), told{
		answer.StatusCode, answer.Proto, answer.Header.Values("X-Method"), answer.Header.Values("Via"), answer.Header.Values("Server"),
	}); diff != "" {
		t.Errorf("%s %s: another answer (-want +got):\n%s", method, url, diff)
	}
	if len(text) == 0 && (method == http.MethodHead || answer.StatusCode == http.StatusNoContent) {
		return
	}
	var got seen
	if err := json.Unmarshal(text, &got); err != nil {
		t.Errorf("%s %s: %v in %q", method, url, err, text)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s %s: the server saw another request (-sent +seen):\n%s", method, url, diff)
	}
	if answer.Trailer.Get("X-Checksum") != "42" {
		t.Errorf("%s %s: trailers %v", method, url, answer.Trailer)
	}
}

// addsLength reports whether Envoy adds Content-Length: 0: it does so to an HTTP/1.1 request
// without a body, unless its method never has one.
func (w *way) addsLength(proto, method string) bool {
	usual := []string{http.MethodGet, http.MethodHead, http.MethodDelete}
	return w.pod.kind == envoy && proto == "HTTP/1.1" && !slices.Contains(usual, method)
}

// opened returns the number of connections that clients have opened.
func (w *way) opened() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.dialed)
}

// checkHTTP2 sends concurrent requests over one connection of HTTP/2 without TLS, whose client
// knows that the server speaks it.
func checkHTTP2(t *testing.T, w *way) {
	const atOnce = 50
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	var arrived sync.WaitGroup
	arrived.Add(atOnce)
	w.serveHTTP(t, http2Port, &http.Server{Protocols: &protocols, Handler: http.HandlerFunc(
		func(answer http.ResponseWriter, request *http.Request) {
			if strings.HasPrefix(request.URL.Path, "/stream/") {
				arrived.Done()
				arrived.Wait() // all are open at once
			}
			tell(answer, request)
		})})
	transport, before := w.transport(t), w.opened()
	transport.Protocols = &protocols
	// The first is alone: a client without a connection opens one for each request.
	w.ask(t, transport, "HTTP/2.0", http.MethodGet, w.url(http2Port, "/first"), "", 0)
	var asking sync.WaitGroup
	for i := range atOnce {
		asking.Go(func() {
			url := w.url(http2Port, fmt.Sprintf("/stream/%d", i))
			w.ask(t, transport, "HTTP/2.0", http.MethodPost, url, strings.Repeat("x", 100*i+1), i)
		})
	}
	asking.Wait()
	if n := w.opened() - before; n != 1 {
		t.Errorf("the client opened %d connections, want one for all requests", n)
	}
	w.wantLogged(logLine{"filter_chain": "http", "protocol": "HTTP/2", "path": "/stream/7", "response_code": 200})
}

// checkWebSocket sends messages both ways over an upgraded connection, and
// closes it with a code.
func checkWebSocket(t *testing.T, w *way) {
	w.serveHTTP(t, webSocketPort, &http.Server{Handler: http.HandlerFunc(
		func(answer http.ResponseWriter, request *http.Request) {
			conn, err := websocket.Accept(answer, request, &websocket.AcceptOptions{Subprotocols: []string{"echo"}})
			if err != nil {
				t.Errorf("server: %v", err)
				return
			}
			defer conn.CloseNow() //nolint:errcheck // closed by then, but for a failed test
			conn.SetReadLimit(-1)
			for {
				kind, message, err := conn.Read(request.Context())
				if err != nil {
					if websocket.CloseStatus(err) != 4242 {
						t.Errorf("server: %v, want the client's close code", err)
					}
					return
				}
				if err := conn.Write(request.Context(), kind, message); err != nil {
					t.Errorf("server: %v", err)
					return
				}
			}
		})})
	conn, _, err := websocket.Dial(t.Context(), strings.Replace(w.url(webSocketPort, "/chat"), "http", "ws", 1), &websocket.DialOptions{ //nolint:bodyclose,lll // the connection is it
		HTTPClient: &http.Client{Transport: w.transport(t)}, Subprotocols: []string{"echo"},
	})
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadLimit(-1)
	if conn.Subprotocol() != "echo" {
		t.Errorf("subprotocol %q, want echo", conn.Subprotocol())
	}
	for _, size := range []int{0, 1, 125, 65_536, 1 << 20} {
		message := make([]byte, size)
		random(1).Read(message) //nolint:errcheck // it never fails
		if err := conn.Write(t.Context(), websocket.MessageBinary, message); err != nil {
			t.Fatal(err)
		}
		if _, got, err := conn.Read(t.Context()); err != nil || sha256.Sum256(got) != sha256.Sum256(message) {
			t.Fatalf("a message of %d bytes came back as %d, %v", size, len(got), err)
		}
	}
	if err := conn.Close(4242, "enough"); err != nil {
		t.Errorf("closing: %v", err)
	}
	w.wantLogged(logLine{"filter_chain": "http", "protocol": "HTTP/1.1", "path": "/chat", "response_code": 101})
}

// checkTLS connects a client and a server by TLS, with HTTP/2 in it.
func checkTLS(t *testing.T, w *way) {
	const name = "secret.example"
	certificate, roots := selfSigned(t, name)
	w.serveHTTP(t, tlsPort, &http.Server{
		Handler:   http.HandlerFunc(tell),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
	})
	for i, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		transport := w.transport(t)
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, ServerName: name, MinVersion: version, MaxVersion: version}
		transport.ForceAttemptHTTP2 = true
		url := strings.Replace(w.url(tlsPort, "/secret"), "http", "https", 1)
		w.ask(t, transport, "HTTP/2.0", http.MethodPost, url, "a secret", i)
		transport.CloseIdleConnections()
	}
	w.wantLogged(logLine{"filter_chain": "tls", "requested_server_name": name})
}

// bodySize is 100 MB.
const bodySize = 100 << 20

// random returns the same stream of bytes each time.
func random(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }

// checkBodies sends 100 MB to the server, which answers with 100 MB.
func checkBodies(t *testing.T, w *way) {
	w.serveHTTP(t, bodyPort, &http.Server{Handler: http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, request.Body)
		answer.Header().Set("X-Got", digest(sum))
		if err != nil || n != bodySize {
			http.Error(answer, fmt.Sprint(n, err), http.StatusBadRequest)
			return
		}
		_, _ = io.CopyN(answer, random(2), bodySize)
	})})
	sum := sha256.New()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url(bodyPort, "/large"),
		io.TeeReader(io.LimitReader(random(3), bodySize), sum))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := w.transport(t).RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if got := answer.Header.Get("X-Got"); answer.StatusCode != http.StatusOK || got != digest(sum) {
		t.Errorf("the server says %s and got a body of digest %s, want %s", answer.Status, got, digest(sum))
	}
	got, want := sha256.New(), sha256.New()
	n, err := io.Copy(got, answer.Body)
	if _, wantErr := io.CopyN(want, random(2), bodySize); err != nil || wantErr != nil || n != bodySize || digest(got) != digest(want) {
		t.Errorf("the answer has %d bytes of digest %s, want %d of %s; %v",
			n, digest(got), bodySize, digest(want), errors.Join(err, wantErr))
	}
	w.wantLogged(logLine{"path": "/large"})
}

func digest(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }
