package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// banner is what a server sends before its client has sent anything.
const banner = "220 a server that speaks first\r\n"

// Ports of servers that speak first.
const (
	knownPort   uint16 = 25   // SMTP
	unknownPort uint16 = 7025 // nobody's
)

// detectionTime is how long Envoy waits for a client's first bytes on a port that it does not know.
const detectionTime = 500 * time.Millisecond

// checkServerFirst waits for a server that speaks first, and then lets the client answer: without
// delay on a known port, and after a while on another.
func checkServerFirst(t *testing.T, w *way) {
	for _, port := range []uint16{knownPort, unknownPort} {
		w.serve(t, port, func(conn *net.TCPConn) error {
			if _, err := io.WriteString(conn, banner); err != nil {
				return err
			}
			_, err := io.Copy(conn, conn)
			return err
		})
		waited := w.pod.detectionTimeouts(t)
		quickest := w.quickestBanner(t, port)
		waited = w.pod.detectionTimeouts(t) - waited
		t.Logf("port %d: a banner after %s", port, quickest.Round(time.Microsecond))
		wantsWait := port == unknownPort && w.pod.kind == envoy
		if (waited > 0) != wantsWait {
			t.Errorf("port %d: the proxy waited for %d clients to speak, want more than none: %t", port, waited, wantsWait)
		}
		if !wantsWait && quickest >= detectionTime {
			t.Errorf("port %d: the quickest of %d banners came after %s", port, banners, quickest)
		}
	}
	w.wantLogged(logLine{"filter_chain": "tcp", "downstream_local_address": w.server(knownPort)})
	w.wantLogged(logLine{"filter_chain": "tcp", "downstream_local_address": w.server(unknownPort)})
}

// banners are awaited one after the other: the quickest of them shows the proxy's delay without the
// machine's.
const banners = 5

func (w *way) quickestBanner(t *testing.T, port uint16) time.Duration {
	t.Helper()
	quickest := answerTime
	for range banners {
		start := time.Now()
		conn := w.mustDial(t, port)
		got := make([]byte, len(banner))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != banner {
			t.Fatalf("port %d: banner %q, %v", port, got, err)
		}
		quickest = min(quickest, time.Since(start))
		if err := talk(conn, "EHLO\r\n"); err != nil {
			t.Errorf("port %d: %v", port, err)
		}
		_ = conn.Close()
	}
	return quickest
}

// talk sends something to a server that echoes it.
func talk(conn net.Conn, words string) error {
	if _, err := io.WriteString(conn, words); err != nil {
		return err
	}
	got := make([]byte, len(words))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != words {
		return fmt.Errorf("said %q, heard %q: %w", words, got, err)
	}
	return nil
}

var timeoutsCounter = regexp.MustCompile(`(?m)^envoy_listener_downstream_pre_cx_timeout\{[^}]*\} (\d+)$`)

// detectionTimeouts returns the number of connections for which Envoy has waited in vain.
func (p *pod) detectionTimeouts(t *testing.T) int {
	t.Helper()
	if p.kind != envoy {
		return 0
	}
	status, text := get(client(fromOutside(p.Lab)), p.Node.PodIPs[0], interception.MetricsPort, "/stats/prometheus")
	if status != http.StatusOK {
		t.Fatalf("metrics: %d %s", status, text)
	}
	total, counters := 0, timeoutsCounter.FindAllStringSubmatch(text, -1)
	if len(counters) == 0 {
		t.Fatal("no counter of detection's timeouts among the metrics")
	}
	for _, c := range counters {
		n, err := strconv.Atoi(c[1])
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	return total
}

// atOnce is how many connections are open at the same time.
const atOnce = 1000

// checkMany opens 1,000 connections, and then talks on all of them at once.
func checkMany(t *testing.T, w *way) {
	w.serve(t, manyPort, func(conn *net.TCPConn) error {
		_, err := io.Copy(conn, conn)
		return err
	})
	w.many(t, manyPort, func(conn net.Conn, i int) error { return talk(conn, fmt.Sprintf("\x00\x01 number %d\n", i)) })
}

// checkManyHTTP lets 1,000 clients with a connection each wait for an answer that none gets before
// all have sent their requests.
func checkManyHTTP(t *testing.T, w *way) {
	var asked sync.WaitGroup
	asked.Add(atOnce)
	w.serveHTTP(t, manyHTTPPort, &http.Server{Handler: http.HandlerFunc(
		func(answer http.ResponseWriter, request *http.Request) {
			asked.Done()
			asked.Wait()
			_, _ = io.WriteString(answer, request.URL.Path)
		})})
	w.many(t, manyHTTPPort, func(conn net.Conn, i int) error {
		path := fmt.Sprintf("/%d", i)
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path); err != nil {
			return err
		}
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if body, err := io.ReadAll(answer.Body); err != nil || string(body) != path {
			return fmt.Errorf("%s: %s %q: %w", path, answer.Status, body, err)
		}
		return nil
	})
}

// many opens connections to a port, and talks on each once all are open.
func (w *way) many(t *testing.T, port uint16, talk func(net.Conn, int) error) {
	t.Helper()
	w.mu.Lock()
	w.sudden = map[uint16]bool{manyPort: true, manyHTTPPort: true}
	w.mu.Unlock()
	conns := make([]net.Conn, atOnce)
	for i := range conns {
		conns[i] = w.mustDial(t, port)
	}
	errs := make([]error, atOnce)
	var talking sync.WaitGroup
	for i, conn := range conns {
		talking.Go(func() { errs[i] = talk(conn, i) })
	}
	talking.Wait()
	if errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil }); len(errs) > 0 {
		t.Errorf("%d of %d failed, such as: %v", len(errs), atOnce, errs[0])
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
}

// checkHalfClosed checks that either end may shut down its direction and continue to read.
func checkHalfClosed(t *testing.T, w *way) {
	const question, late = "question", "an answer to one who has stopped talking"
	w.serve(t, halfPort, func(conn *net.TCPConn) error {
		if _, err := io.WriteString(conn, "hello\n"); err != nil {
			return err
		}
		got, err := io.ReadAll(conn) // to the client's end
		if err != nil || string(got) != question {
			return fmt.Errorf("got %q: %w", got, err)
		}
		_, err = io.WriteString(conn, late)
		return err
	})
	conn := w.mustDial(t, halfPort)
	hello := bufio.NewReader(conn)
	if line, err := hello.ReadString('\n'); err != nil || line != "hello\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if _, err := io.WriteString(conn, question); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(hello); err != nil || string(got) != late {
		t.Errorf("the client that stopped talking got %q, %v; want %q", got, err, late)
	}
}

// checkServerHalfClosed checks the same the other way round.
func checkServerHalfClosed(t *testing.T, w *way) {
	const last, after = "all that I have to say", "words for one who has stopped talking"
	heard := make(chan string, 1)
	w.serve(t, halfPort, func(conn *net.TCPConn) error {
		if _, err := io.WriteString(conn, last); err != nil {
			return err
		}
		if err := conn.CloseWrite(); err != nil {
			return err
		}
		got, err := io.ReadAll(conn)
		heard <- string(got)
		return err
	})
	conn := w.mustDial(t, halfPort)
	if got, err := io.ReadAll(conn); err != nil || string(got) != last {
		t.Fatalf("the client got %q, %v; want %q", got, err, last)
	}
	if _, err := io.WriteString(conn, after); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-heard:
		if got != after {
			t.Errorf("the server that stopped talking got %q, want %q", got, after)
		}
	case <-time.After(answerTime):
		t.Error("the server that stopped talking got nothing")
	}
}
