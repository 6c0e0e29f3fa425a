package webhook

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

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

// TestTurns holds that an answer waits while as many are worked out as there
// are processors, and that each gives its turn back, however it ends.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := NewHandler(inject.DefaultConfig(), StaticNamespaces{"demo": {}}, NewMetrics())
		for range cap(handler.turns) {
			handler.turns <- struct{}{}
		}
		done := make(chan answer, 1)
		pod := `{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"sidecar.istio.io/inject":"true"}},` +
			`"spec":{"containers":[{"name":"app"}]}}`
		go func() {
			done <- handler.complete(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
				Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}, Operation: admissionv1.Create, Namespace: "demo",
				Object: runtime.RawExtension{Raw: []byte(pod)},
			}})
		}()
		synctest.Wait()
		if len(done) > 0 {
			t.Fatal("answered without a turn")
		}
		<-handler.turns
		if a := <-done; a.verdict != verdictInjected {
			t.Errorf("%s: %s", a.verdict, a.reason)
		}
		if got, want := len(handler.turns), cap(handler.turns)-1; got != want {
			t.Errorf("%d turns are taken after the answer, want %d", got, want)
		}
	})
}
