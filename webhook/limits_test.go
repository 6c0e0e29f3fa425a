package webhook

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	dto "github.com/prometheus/client_model/go"

	"github.com/shunt-dev/shunt/inject/config"
)

// TestBodyThatDoesNotCome checks that a client that stops in the middle of a body is answered when
// its time is over, and does not keep its connection.
func TestBodyThatDoesNotCome(t *testing.T) {
	handler := NewHandler(config.Default(), StaticNamespaces{}, NewMetrics())
	server := httptest.NewServer(handler.HTTP(logr.Discard()))
	defer server.Close()
	connection, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(connection, "POST /?timeout=50ms HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\n"+
		"Content-Length: 100\r\n\r\n{")
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusRequestTimeout {
		t.Errorf("code %d, want %d", response.StatusCode, http.StatusRequestTimeout)
	}
	if handler.intake.free != bodiesMemory {
		t.Errorf("%d bytes of %d are free after it", handler.intake.free, bodiesMemory)
	}
}

// TestTimeFor checks that an answer takes no longer than its client waits.
func TestTimeFor(t *testing.T) {
	handler := NewHandler(config.Default(), StaticNamespaces{}, NewMetrics())
	for query, want := range map[string]time.Duration{
		"": answerTime, "timeout=5s": 5 * time.Second, "timeout=30s": answerTime, "timeout=0s": answerTime,
		"timeout=-1s": answerTime, "timeout=x": answerTime,
	} {
		if got := handler.timeFor(httptest.NewRequest(http.MethodPost, Path+"?"+query, nil)); got != want {
			t.Errorf("%q: %v, want %v", query, got, want)
		}
	}
}

// busy returns a Handler all of whose turns are taken.
func busy(t *testing.T) *Handler {
	t.Helper()
	handler := NewHandler(config.Default(), StaticNamespaces{"demo": {}}, NewMetrics())
	if err := handler.turns.Acquire(t.Context(), workMemory); err != nil {
		t.Fatal(err)
	}
	return handler
}

// TestTurns checks that an answer waits while as many are worked out as there are processors, and
// that each gives its turn back, however it ends.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := busy(t)
		done := make(chan answer, 1)
		go func() { done <- handler.complete(t.Context(), podRequest(t)) }()
		synctest.Wait()
		if len(done) > 0 {
			t.Fatal("answered without a turn")
		}
		handler.turns.Release(workMemory)
		if a := <-done; a.verdict != verdictInjected {
			t.Errorf("%s: %s", a.verdict, a.reason)
		}
		if !handler.turns.TryAcquire(workMemory) {
			t.Error("a turn is taken after the answer")
		}
	})
}

// TestStopsWaiting checks that an answer waits for a turn only as long as its client waits.
func TestStopsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := busy(t)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		from := time.Now()
		a := handler.complete(ctx, podRequest(t))
		if took := time.Since(from); took != 5*time.Second || a.reason != failureAbandoned {
			t.Errorf("%s after %v, want %s after 5s", a.reason, took, failureAbandoned)
		}
		handler.turns.Release(workMemory)
		if !handler.turns.TryAcquire(workMemory) {
			t.Error("it took a turn all the same")
		}
	})
}

// TestClientThatGoes checks that no work is done for a client that has gone.
func TestClientThatGoes(t *testing.T) {
	handler := busy(t)
	server := httptest.NewServer(handler.HTTP(logr.Discard()))
	defer server.Close()
	ctx, hangUp := context.WithCancel(t.Context())
	body := `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u"}}`
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	time.AfterFunc(100*time.Millisecond, hangUp)
	response, err := server.Client().Do(request)
	if err == nil {
		response.Body.Close()
		t.Fatalf("answered with code %d, and there was no turn", response.StatusCode)
	}
	abandoned := func() float64 {
		var counter dto.Metric
		if err := handler.metrics.requests.WithLabelValues(string(verdictFailed), failureAbandoned).Write(&counter); err != nil {
			t.Fatal(err)
		}
		return counter.GetCounter().GetValue()
	}
	for deadline := time.Now().Add(answerTime / 2); abandoned() == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is still waited with")
		}
	}
}

// slow is a client that sends what is put into it.
type slow struct {
	sent    chan []byte
	stopped chan struct{}
}

var errStopped = errors.New("stopped")

func (s slow) Read(into []byte) (int, error) {
	select {
	case text, more := <-s.sent:
		if !more {
			return 0, io.EOF
		}
		return copy(into, text), nil
	case <-s.stopped:
		return 0, errStopped
	}
}

// TestIntake checks that memory for bodies is bounded, and that the body that has been arriving for
// longest is evicted for others, but never a complete one.
func TestIntake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const memory = 64 << 10
		dropped := 0
		in := newIntake(memory, func() { dropped++ })
		whole := in.register(func() {})
		if err := whole.read(t.Context(), bytes.NewReader(make([]byte, memory/2-1)), memory/2-1); err != nil {
			t.Fatal(err)
		}
		var bodies []*body
		results := make([]chan error, 8)
		for i := range results {
			client := slow{make(chan []byte, 1), make(chan struct{})}
			client.sent <- make([]byte, firstRead-1)
			b := in.register(func() { close(client.stopped) })
			bodies, results[i] = append(bodies, b), make(chan error, 1)
			go func() { results[i] <- b.read(t.Context(), client, firstRead-1); b.release() }()
			synctest.Wait()
			time.Sleep(time.Millisecond)
		}
		if in.free != 0 {
			t.Fatalf("%d bytes are free, want none", in.free)
		}
		from := time.Now()
		quick := in.register(func() {})
		if err := quick.read(t.Context(), strings.NewReader("{}"), 2); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(from); took > patience+evictInterval {
			t.Errorf("a body waited %v for memory", took)
		}
		if err := <-results[0]; !errors.Is(err, errEvicted) || dropped != 1 {
			t.Errorf("the oldest ended with %v, and %d were dropped", err, dropped)
		}
		for i, b := range bodies[1:] {
			if b.wasEvicted() {
				t.Errorf("body %d was cut off, too", i+1)
			}
		}
		large := in.register(func() {})
		if err := large.read(t.Context(), bytes.NewReader(make([]byte, memory)), memory); !errors.Is(err, errEvicted) {
			t.Errorf("a body that there is no memory for ended with %v", err)
		}
		for i, result := range results[1:] {
			if err := <-result; !errors.Is(err, errEvicted) {
				t.Errorf("body %d ended with %v", i+1, err)
			}
		}
		whole.release()
		quick.release()
		large.release()
		synctest.Wait()
		if in.free != memory {
			t.Errorf("%d bytes were not given back", memory-in.free)
		}
	})
}

// TestPromises checks that a body takes memory for what has arrived, not for what the client
// states.
func TestPromises(t *testing.T) {
	in := newIntake(bodiesMemory, func() {})
	b := in.register(func() {})
	_ = b.read(t.Context(), io.MultiReader(strings.NewReader("{"), errorReader{}), maxBody)
	if b.held > 2*firstRead {
		t.Errorf("a byte takes %d bytes", b.held)
	}
	b.release()
	if in.free != bodiesMemory {
		t.Errorf("%d bytes were not given back", bodiesMemory-in.free)
	}
}

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestConnections checks that one connection too many closes the one that has been inactive for
// longest.
func TestConnections(t *testing.T) {
	dropped := 0
	open := newConnections(2, func() { dropped++ })
	type pipe struct{ here, there net.Conn }
	connect := func() pipe {
		var p pipe
		p.here, p.there = net.Pipe()
		open.changed(p.here, http.StateNew)
		return p
	}
	first, second := connect(), connect()
	open.changed(first.here, http.StateActive)
	third := connect()
	if _, err := second.there.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || dropped != 1 {
		t.Errorf("the second one reads %v, %d are dropped", err, dropped)
	}
	open.changed(second.here, http.StateClosed)
	open.changed(third.here, http.StateClosed)
	connect()
	if open.order.Len() != 2 || dropped != 1 {
		t.Errorf("%d are open and %d dropped, want 2 and 1", open.order.Len(), dropped)
	}
}

// TestWeigh checks that pods are heavy that take more memory decoded than as JSON, and no others.
func TestWeigh(t *testing.T) {
	many := func(n int, text string) string { return strings.TrimSuffix(strings.Repeat(text+",", n), ",") }
	for name, test := range map[string]struct {
		text string
		most bool
	}{
		"containers":             {`{"spec":{"containers":[` + many(100_000, "{}") + `]}}`, true},
		"containers, escaped":    {`{"spec":{"cont\u0061iners":[` + many(100_000, "{}") + `]}}`, true},
		"containers, with space": {`{"spec":{"containers" : [` + many(100_000, "{}") + `]}}`, true},
		"volumes":                {`{"spec":{"volumes":[` + many(200_000, "{}") + `]}}`, true},
		"anything":               {`{"spec":{"tolerations":[` + many(1_000_000, "{}") + `]}}`, true},
		"variables":              {`{"spec":{"containers":[{"env":[` + many(100_000, `{"name":"V123456","value":"x"}`) + `]}]}}`, false},
		"containers of a server": {`{"spec":{"containers":[` + many(5_000, `{"name":"c","resources":{}}`) + `]}}`, false},
		"braces in a string":     {`{"metadata":{"annotations":{"a":"` + strings.Repeat(`{\",{`, 500_000) + `"}}}`, false},
		"unbalanced":             {`]]}}{"a":[[["x`, false},
	} {
		if weight := weigh([]byte(test.text)); (weight > workMemory) != test.most {
			t.Errorf("%s: %d bytes of JSON weigh %d, and %d are accepted", name, len(test.text), weight, workMemory)
		}
	}
}

// TestClip checks that a clipped text is no longer than allowed, as JSON.
func TestClip(t *testing.T) {
	for _, text := range []string{"", "short", strings.Repeat("x", 500), strings.Repeat("\x00", 500), strings.Repeat("ü世\U0001F600", 100),
		strings.Repeat(`"<\`, 200), strings.Repeat("\xff", 300), strings.Repeat("\u2028\u00ad", 99)} {
		got := clip(text, 200)
		if size := quotedSize(got); size > 200 {
			t.Errorf("%q is %d bytes: %q", text, size, got)
		}
		if len(text) < 50 && got != text {
			t.Errorf("%q is cut to %q", text, got)
		}
	}
}
