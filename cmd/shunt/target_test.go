package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestQuoted(t *testing.T) {
	for word, want := range map[string]string{
		"production": "production", "arn:aws:eks:eu/x": "arn:aws:eks:eu/x", "a b": "'a b'",
		"it's; rm -rf ~": `'it'\''s; rm -rf ~'`, "$(x)": "'$(x)'",
	} {
		if got := quoted(word); got != want {
			t.Errorf("%q: %s, want %s", word, got, want)
		}
	}
}

// TestCompletion completes namespaces and pods from the cluster; without one, it
// completes nothing, says nothing, and does not make anybody wait.
func TestCompletion(t *testing.T) {
	held := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		names := map[string][]string{
			"/api/v1/namespaces": {"shop", "quiet"}, "/api/v1/namespaces/shop/pods": {"echo-1"}, "/api/v1/namespaces/mine/pods": {"own"},
		}[r.URL.Path]
		if r.URL.Path == "/api/v1/namespaces/slow/pods" {
			<-held
		}
		kind, items := "PodList", []any{}
		if r.URL.Path == "/api/v1/namespaces" {
			kind = "NamespaceList"
		}
		for _, name := range names {
			items = append(items, map[string]any{"metadata": map[string]string{"name": name}})
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"apiVersion": "v1", "kind": kind, "items": items})
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(held) })
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: [{name: x, context: {cluster: x, namespace: mine}}]\n"+
		"clusters: [{name: x, cluster: {server: %q}}]\n", server.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	complete := func(args ...string) string {
		var stdout, stderr bytes.Buffer
		if err := run(t.Context(), "shunt", append([]string{"__complete"}, args...), strings.NewReader(""), &stdout, &stderr); err != nil {
			t.Fatal(err)
		}
		told := strings.TrimSpace(stderr.String())
		if !strings.HasPrefix(told, "Completion ended with directive") || strings.Contains(told, "\n") {
			t.Errorf("%v: said %q", args, told)
		}
		lines := strings.Fields(stdout.String())
		return strings.Join(lines[:len(lines)-1], " ") // the last is cobra's directive
	}
	for _, command := range []string{"check", "explain", "list"} {
		if got := complete(command, "--kubeconfig", file, "-n", ""); got != "shop quiet" {
			t.Errorf("%s -n: %q", command, got)
		}
		if got := complete(command, "--kubeconfig", "nowhere", "-n", ""); got != "" {
			t.Errorf("%s -n without a cluster: %q", command, got)
		}
	}
	if got := complete("explain", "--kubeconfig", file, "-n", "shop", ""); got != "echo-1" {
		t.Errorf("pods: %q", got)
	}
	if got := complete("explain", "--kubeconfig", file, ""); got != "own" {
		t.Errorf("pods of the context's namespace: %q", got)
	}
	start := time.Now()
	if got := complete("explain", "--kubeconfig", file, "-n", "slow", ""); got != "" || time.Since(start) > time.Minute {
		t.Errorf("pods of a cluster that does not answer: %q after %s", got, time.Since(start))
	}
}
