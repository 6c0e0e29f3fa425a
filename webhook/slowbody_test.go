package webhook

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/shunt-dev/shunt/inject"
)

// TestBodyThatDoesNotCome holds that a client that stops in the middle of a
// body is answered, and does not hold its connection.
func TestBodyThatDoesNotCome(t *testing.T) {
	handler := NewHandler(inject.DefaultConfig(), StaticNamespaces{}, NewMetrics())
	handler.bodyTime = 50 * time.Millisecond
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
	fmt.Fprint(connection, "POST / HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusRequestTimeout {
		t.Errorf("code %d, want %d", response.StatusCode, http.StatusRequestTimeout)
	}
}
