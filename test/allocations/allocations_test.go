//go:build !race

// The race detector allocates, too.

package allocations

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/webhook"
)

var update = flag.Bool("update", false, "write recorded.txt anew")

const record = "recorded.txt"

// TestAllocations compares each number with the recorded one.
func TestAllocations(t *testing.T) {
	const rounds = 200
	var measured []string
	for _, m := range measures(t) {
		m.do() // what is made once is made
		measured = append(measured, fmt.Sprintf("%s: %.0f", m.name, testing.AllocsPerRun(rounds, m.do)))
	}
	if *update {
		if err := os.WriteFile(record, []byte(strings.Join(measured, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	recorded := numbers(t, strings.Split(strings.TrimSpace(string(text)), "\n"))
	for name, got := range numbers(t, measured) {
		if was, known := recorded[name]; !known || got > was*1.1 {
			t.Errorf("%s: %.0f allocations, recorded are %.0f; if that is meant: go test ./test/allocations -update", name, got, was)
		}
	}
}

func numbers(t *testing.T, lines []string) map[string]float64 {
	t.Helper()
	all := map[string]float64{}
	for _, line := range lines {
		name, text, _ := strings.Cut(line, ": ")
		var number float64
		if _, err := fmt.Sscan(text, &number); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all[name] = number
	}
	return all
}

type measure struct {
	name string
	do   func()
}

func measures(t *testing.T) []measure {
	namespace := inject.Namespace{Name: "demo", Labels: map[string]string{inject.NamespaceInjectionKey: "enabled"}}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "echo-", Namespace: namespace.Name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	text := encode(t, pod)
	injector := inject.NewInjector(inject.DefaultConfig())
	handler := webhook.NewHandler(inject.DefaultConfig(), webhook.StaticNamespaces{namespace.Name: namespace}, webhook.NewMetrics()).
		HTTP(logr.Discard())
	review := encode(t, admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "uid", Operation: admissionv1.Create, Namespace: namespace.Name,
			Kind:     metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Object:   runtime.RawExtension{Raw: text},
		},
	})
	return []measure{
		{"pod bytes to patch bytes", func() {
			var pod corev1.Pod
			if err := json.Unmarshal(text, &pod); err != nil {
				t.Fatal(err)
			}
			if result, ops := injector.Patch(&pod, namespace); !result.Inject || len(inject.EncodePatch(ops)) == 0 {
				t.Fatal(result.Reason)
			}
		}},
		{"review bytes to review bytes", func() {
			request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, webhook.Path, bytes.NewReader(review))
			request.Header.Set("Content-Type", "application/json")
			answer := httptest.NewRecorder()
			handler.ServeHTTP(answer, request)
			if answer.Code != http.StatusOK || !bytes.Contains(answer.Body.Bytes(), []byte(`"patch":`)) {
				t.Fatalf("not injected: %d %.500s", answer.Code, answer.Body)
			}
		}},
	}
}

func encode(t *testing.T, value any) []byte {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
