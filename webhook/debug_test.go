package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shunt-dev/shunt/inject/config"
)

// debugAnswer returns the answer to a GET.
func debugAnswer(t *testing.T, url string) (code int, text string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// TestInForce checks what /configuration says before the API server's version is known, after it,
// after a change and while the file is bad.
func TestInForce(t *testing.T) {
	current := new(current)
	opts := Options{Version: "v0.1.0", Config: ConfigFile{Path: "/etc/shunt/config.yaml"}}
	server := httptest.NewServer(newDebugServer(opts, current).mux)
	t.Cleanup(server.Close)
	read := func() config.InForce {
		t.Helper()
		code, text := debugAnswer(t, server.URL+config.InForcePath)
		var got config.InForce
		if err := json.Unmarshal([]byte(text), &got); err != nil || code != http.StatusOK {
			t.Fatalf("code %d, error %v: %s", code, err, text)
		}
		return got
	}
	cfg := config.Default()
	current.configure(cfg)
	current.waitForVersion()
	code, text := debugAnswer(t, server.URL+config.InForcePath)
	if code != http.StatusServiceUnavailable || text != errVersionUnknown.Error()+"\n" {
		t.Errorf("before the version is known: code %d, %q", code, text)
	}
	current.setNativeSidecars(false)
	first := read()
	got := first
	got.Since, got.Configuration = config.InForce{}.Since, nil
	if diff := cmp.Diff(config.InForce{Version: "v0.1.0", Revision: "default", File: "/etc/shunt/config.yaml"}, got); diff != "" {
		t.Errorf("in force (-want +got):\n%s", diff)
	}
	if age := time.Since(first.Since.Time); age < 0 || age > time.Hour {
		t.Errorf("in force since %s", first.Since)
	}

	cfg.Revision, cfg.ProxyResources.Limits = "canary", nil
	cfg.InitResources.Requests["cpu"] = resource.MustParse("11m")
	current.configure(cfg)
	current.setNativeSidecars(true)
	current.reject(errors.New("concurrency: accepted: a whole number"))
	got = read()
	if got.Revision != "canary" || !got.NativeSidecars || got.Error != "concurrency: accepted: a whole number" {
		t.Errorf("after a change and a bad file: %+v", got)
	}
	decoded, unknown, err := config.Decode(got.Configuration)
	if diff := cmp.Diff(cfg, decoded); diff != "" || err != nil || len(unknown) > 0 {
		t.Errorf("error %v, unknown %v, configuration (-want +got):\n%s", err, unknown, diff)
	}
	current.configure(cfg)
	if got = read(); got.Error != "" {
		t.Errorf("after a good file: error %q", got.Error)
	}
}

// TestProfiles checks that Go's profiles are where its tools look for them.
func TestProfiles(t *testing.T) {
	server := httptest.NewServer(newDebugServer(Options{}, new(current)).mux)
	t.Cleanup(server.Close)
	for path, want := range map[string]int{
		"/debug/pprof/": 200, "/debug/pprof/heap": 200, "/debug/pprof/cmdline": 200, "/debug/pprof/symbol": 200, "/": 404, "/metrics": 404,
	} {
		if code, _ := debugAnswer(t, server.URL+path); code != want {
			t.Errorf("%s: code %d, want %d", path, code, want)
		}
	}
}

// TestDebugAddressTaken checks that a port that is taken stops nothing, and is logged.
func TestDebugAddressTaken(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var log strings.Builder
	opts := Options{DebugAddress: listener.Addr().String(), Log: funcr.New(func(_, line string) { log.WriteString(line) }, funcr.Options{})}
	if err := newDebugServer(opts, new(current)).Start(t.Context()); err != nil {
		t.Errorf("error %v, which ends the webhook", err)
	}
	if !strings.Contains(log.String(), "address already in use") {
		t.Errorf("the log does not say why: %q", log.String())
	}
}

// TestDebugServerEnds checks that it serves until the manager ends.
func TestDebugServerEnds(t *testing.T) {
	addresses := make(chan string, 1)
	log := funcr.NewJSON(func(line string) {
		var values struct{ Address string }
		if err := json.Unmarshal([]byte(line), &values); err == nil && values.Address != "" {
			addresses <- values.Address
		}
	}, funcr.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- newDebugServer(Options{DebugAddress: "127.0.0.1:0", Log: log}, new(current)).Start(ctx)
	}()
	if code, _ := debugAnswer(t, "http://"+<-addresses+config.InForcePath); code != http.StatusServiceUnavailable {
		t.Errorf("code %d, want %d", code, http.StatusServiceUnavailable)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestReloadSaysWhatChanged checks the fields in the line of a configuration that is in force: those that
// are not the default at the start, and later those that changed.
func TestReloadSaysWhatChanged(t *testing.T) {
	r := newReloading(t, time.Hour)
	r.file.Parse = func(text []byte, _ config.ReadFile) (config.Config, error) {
		cfg, _, err := config.Decode(append([]byte("apiVersion: shunt.dev/v1alpha1\nkind: InjectorConfiguration\n"), text...))
		return cfg, err
	}
	r.handler.SetConfig(config.Default())
	lineOf := func(text string) string {
		t.Helper()
		write(t, r.file.Path, text)
		r.reloader.check()
		return <-r.lines
	}
	for _, step := range []struct{ text, says string }{
		{"initImage: mine:v1\n", `"notDefault"=["initImage: shunt-init -> mine:v1"]`},
		{"initImage: mine:v2\nconcurrency: 3\n", `"changed"=["initImage: mine:v1 -> mine:v2","concurrency: 2 -> 3"]`},
		{"# a comment\nconcurrency: 3\ninitImage: mine:v2\n", `"changed"=[]`},
		{"initImage: " + strings.Repeat("x", 100_000) + "\nconcurrency: 4\n", `"concurrency: 3 -> 4"]`},
	} {
		if line := lineOf(step.text); !strings.Contains(line, strings.Replace(step.says, "=", ":", 1)) || len(line) > 4096 {
			t.Errorf("a line of %d bytes, want one that says %s: %s", len(line), step.says, clip(line, maxLogged))
		}
	}
}
