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
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/cases"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/webhook"
)

var update = flag.Bool("update", false, "write recorded.txt anew")

const record = "recorded.txt"

// TestAllocations compares each number with the recorded one.
func TestAllocations(t *testing.T) {
	const rounds = 200
	measured := sizes(t)
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
		if was, known := recorded[name]; !known || grown(got, was) {
			t.Errorf("%s: %.0f, recorded are %.0f; if that is meant: go test ./test/allocations -update", name, got, was)
		}
	}
}

// grown reports whether a number is greater than the recorded one by more than
// a tenth.
func grown(got, was float64) bool { return got*10 > was*11 }

func TestGrown(t *testing.T) {
	for _, test := range []struct {
		got, was float64
		want     bool
	}{{243, 243, false}, {267, 243, false}, {268, 243, true}, {200, 243, false}, {4, 4, false}, {5, 4, true}} {
		if grown(test.got, test.was) != test.want {
			t.Errorf("%v of %v: want %v", test.got, test.was, test.want)
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

var namespace = annotation.Namespace{Name: "demo", Labels: map[string]string{annotation.NamespaceInjectionKey: "enabled"}}

// sizes are those of the patches, which are not to grow with the pod.
func sizes(t *testing.T) []string {
	t.Helper()
	var lines []string
	for _, p := range []struct {
		name string
		pod  *corev1.Pod
	}{{"a pod", cases.Small()}, {"a large pod", cases.Large()}} {
		operations := inject.Inject(p.pod, namespace, config.Default()).Operations
		lines = append(lines, fmt.Sprintf("operations in the patch of %s: %d", p.name, len(operations)),
			fmt.Sprintf("bytes in the patch of %s: %d", p.name, len(podplan.EncodePatch(operations))))
	}
	return lines
}

func measures(t *testing.T) []measure {
	text, large := encode(t, cases.Small()), cases.Large()
	injector := inject.NewInjector(config.Default())
	handler := webhook.NewHandler(config.Default(), webhook.StaticNamespaces{namespace.Name: namespace}, webhook.NewMetrics()).
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
			if result := injector.Inject(&pod, namespace); len(podplan.EncodePatch(result.Operations)) < 3 {
				t.Fatal(result.Reason)
			}
		}},
		{"a large pod to patch bytes, decoding aside", func() {
			if result := injector.Inject(large, namespace); len(podplan.EncodePatch(result.Operations)) < 3 {
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
