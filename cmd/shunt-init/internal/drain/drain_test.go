package drain

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fake is an admin interface whose successive looks find what looks says; the last one repeats.
type fake struct {
	mu    sync.Mutex
	looks []int // connections under way
	asked []string
}

// ServeHTTP answers as Envoy does.
func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, r.Method+" "+r.URL.Path)
	switch r.Method + " " + r.URL.Path {
	case "POST /healthcheck/fail":
		fmt.Fprint(w, "OK\n")
	case "GET /listeners":
		fmt.Fprint(w, "virtualInbound::0.0.0.0:15006\n")
	case "GET /stats":
		left := f.looks[0]
		if len(f.looks) > 1 {
			f.looks = f.looks[1:]
		}
		fmt.Fprintf(w, "listener.0.0.0.0_15006.downstream_cx_active: %d\n", left)
		w.(http.Flusher).Flush() // from here on it is chunked
		fmt.Fprint(w, strings.Repeat("cluster.c.upstream_cx_active: 1\n", 1000))
	default:
		http.NotFound(w, r)
	}
}

func (f *fake) start(t *testing.T) (address string) {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestRunEndsAfterTwoIdleLooks(t *testing.T) {
	f := &fake{looks: []int{2, 0, 1, 0, 0, 9}}
	left, err := Run(t.Context(), f.start(t), time.Minute)
	if err != nil || left.Any() {
		t.Errorf("left %s, error %v", left, err)
	}
	want := append([]string{"POST /healthcheck/fail", "GET /listeners"}, slices.Repeat([]string{"GET /stats"}, 5)...)
	if !slices.Equal(f.asked, want) {
		t.Errorf("asked %q, want %q", f.asked, want)
	}
}

func TestRunEndsWhenTheTimeIsOver(t *testing.T) {
	f := &fake{looks: []int{3}}
	left, err := Run(t.Context(), f.start(t), time.Millisecond)
	if err != nil || left != (UnderWay{Connections: 3}) {
		t.Errorf("left %s, error %v; want 3 connections", left, err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done() // no answer
	}))
	t.Cleanup(silent.Close)
	if left, err := Run(ctx, strings.TrimPrefix(silent.URL, "http://"), time.Hour); err != nil {
		t.Errorf("left %s, error %v", left, err)
	}

	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, "127.0.0.1:1", time.Hour); err != nil {
		t.Errorf("called off before it began: %v", err)
	}
}

func TestRunWithoutAdmin(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	notFound := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(notFound.Close)
	gone.Close()
	for server, want := range map[*httptest.Server]string{gone: "refused", notFound: "404"} {
		address := strings.TrimPrefix(server.URL, "http://")
		_, err := Run(t.Context(), address, time.Minute)
		if !errors.Is(err, ErrAdmin) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), address) {
			t.Errorf("error %v, want an %v that says %s and %s", err, ErrAdmin, want, address)
		}
	}
}

func TestAnswer(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for text, want := range map[string]string{
		ok + "\r\n":                          "",
		ok + "content-length: 3\r\n\r\nOK\n": "OK\n",
		ok + "Transfer-Encoding:chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n": "abc0123456789",
	} {
		got, err := readResponse(bufio.NewReader(strings.NewReader(text)))
		if err != nil || got != want {
			t.Errorf("%q: %q, error %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "HTTP/1.1 200 OK", "HTTP/1.1 503 no\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n", "SSH-2.0\r\n\r\n", ok, ok + "a: b\r\n",
		ok + "transfer-encoding: chunked\r\n\r\n", ok + "transfer-encoding: chunked\r\n\r\n4\r\nabc",
		ok + "transfer-encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n", ok + "transfer-encoding: chunked\r\n\r\nxyz\r\n",
		ok + "transfer-encoding: chunked\r\n\r\n-1\r\n", ok + "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
	} {
		if got, err := readResponse(bufio.NewReader(strings.NewReader(text))); err == nil {
			t.Errorf("%q was taken for %q", text, got)
		} else if errors.Is(err, io.EOF) {
			t.Errorf("%q: %v, want it to be unexpected", text, err)
		}
	}
}
