package cluster

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/check"
	"github.com/shunt-dev/shunt/inject/config"
)

// TestReplicas asks pods for the configuration that they use: one that has it, and
// those that give another answer or none.
func TestReplicas(t *testing.T) {
	encoded, err := config.Encode(config.Default())
	if err != nil {
		t.Fatal(err)
	}
	given := config.InForce{
		Version: "v1.2.3", Revision: "default", File: "/etc/shunt/config.yaml", NativeSidecars: true, Configuration: encoded,
		Since: metav1.NewTime(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)),
	}
	for _, test := range []struct {
		name    string
		answer  func(w http.ResponseWriter, path string)
		problem string // empty for none
	}{
		{"a configuration", func(w http.ResponseWriter, path string) {
			if path != config.InForcePath {
				http.Error(w, path, http.StatusNotFound)
				return
			}
			_ = json.NewEncoder(w).Encode(given)
		}, ""},
		{"an older webhook", func(w http.ResponseWriter, _ string) {
			http.Error(w, "404 page not found", http.StatusNotFound)
		}, "404 Not Found: 404 page not found"},
		{"not ready", func(w http.ResponseWriter, _ string) {
			http.Error(w, "the version is not known", http.StatusServiceUnavailable)
		}, "503 Service Unavailable: the version is not known"},
		{"another program", func(w http.ResponseWriter, _ string) { fmt.Fprintln(w, "<html>") }, "its answer is no configuration"},
		{"another object", func(w http.ResponseWriter, _ string) { fmt.Fprintln(w, "{}") }, "its answer is no configuration"},
		{"no end", func(w http.ResponseWriter, _ string) {
			for range 64 {
				_, _ = w.Write([]byte(strings.Repeat(" ", 1<<20)))
			}
		}, "its answer is no configuration"},
	} {
		t.Run(test.name, func(t *testing.T) {
			pod := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { test.answer(w, r.URL.Path) }))
			t.Cleanup(pod.Close)
			server := httptest.NewServer(&apiServer{debug: pod.Listener.Addr().String()})
			t.Cleanup(server.Close)
			c, err := connect(&rest.Config{Host: server.URL})
			if err != nil {
				t.Fatal(err)
			}
			got := c.replicas(t.Context(), check.Asking{
				Namespace: "shunt-system", Service: "shunt-webhook", Pods: []string{"webhook-1", "webhook-2"}, Port: 6060,
			})
			want := check.Replica{Namespace: "shunt-system", Service: "shunt-webhook", Pod: "webhook-1"}
			if test.problem == "" {
				want.InForce = given
			}
			if !strings.HasPrefix(got[0].Problem, test.problem) || (got[0].Problem == "") != (test.problem == "") {
				t.Errorf("problem %q, want %q", got[0].Problem, test.problem)
			}
			got[0].Problem = ""
			if diff := cmp.Diff(want, got[0]); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got[1].Pod != "webhook-2" || got[1].Problem == "" {
				t.Errorf("a pod that is not there: %+v", got[1])
			}
		})
	}
}
