package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/cmd/internal/daemon"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/webhook"
)

// configType is the first line of every configuration.
const configType = "apiVersion: shunt.dev/v1alpha1\nkind: InjectorConfiguration\n"

// configFile returns the flag for a file that sets what has to be set.
func configFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(configType+"initImage: mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return "--config=" + file
}

func TestParseDefaults(t *testing.T) {
	got, err := parse([]string{configFile(t)})
	if err != nil {
		t.Fatal(err)
	}
	wanted := config.Default()
	wanted.InitImage = "mine"
	if diff := cmp.Diff(wanted, got.config); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	want := webhook.DefaultOptions()
	if got.options.Port != want.Port || got.options.CertDir != want.CertDir ||
		got.options.MetricsAddress != want.MetricsAddress || got.options.ProbeAddress != want.ProbeAddress ||
		got.options.DebugAddress != "127.0.0.1:6060" {
		t.Errorf("options %+v, want %+v", got.options, want)
	}
}

// TestFlagsOverrideTheFile checks the order of precedence: defaults, file, flags.
func TestFlagsOverrideTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(configType+"initImage: from-file\nrevision: from-file\nconcurrency: 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := parse([]string{"--config", file, "--revision=canary"})
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.InitImage, want.Concurrency, want.Revision = "from-file", 7, "canary"
	if diff := cmp.Diff(want, got.config); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

// TestFlagsOverrideOnReload checks the same order for a file that is read again, and that it is
// validated like the first.
func TestFlagsOverrideOnReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(configType+"initImage: first\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := parse([]string{"--config", file, "--revision=from-flag"})
	if err != nil {
		t.Fatal(err)
	}
	if s.options.Config.Path != file {
		t.Errorf("the file that is read again is %q, want %q", s.options.Config.Path, file)
	}
	got, err := s.options.Config.Parse([]byte(configType+"initImage: second\nrevision: from-file\n"), nil)
	want := config.Default()
	want.InitImage, want.Revision = "second", "from-flag"
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("error %v, configuration (-want +got):\n%s", err, diff)
	}
	ranges, err := s.options.Config.Parse([]byte(configType+"initImage: a\nexcludeOutboundIPRanges: file:cdn.txt\n"),
		func(name string) ([]byte, error) { return []byte("10.0.0.0/8 # " + name), nil })
	if err != nil || ranges.ExcludeOutboundIPRanges != "10.0.0.0/8" {
		t.Errorf("of a file beside it are excluded %q, error %v", ranges.ExcludeOutboundIPRanges, err)
	}
	for text, says := range map[string]string{
		"proxyImage: registry.invalid:5000/a": "--config: initImage: ", "initImage: a\nproxyImage: my.invalid/b": "--config: proxyImage: ",
		"backend: bpf": `backend: Unsupported value: "bpf"`, "initImages: x": "initImages", "{": "--config " + file,
	} {
		if _, err := s.options.Config.Parse([]byte(configType+text), nil); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: error %v, want one that says %s", text, err, says)
		}
	}
}

// TestDebugIsOnLoopback checks that others see configuration and profiles only if an address is given that they
// can reach.
func TestDebugIsOnLoopback(t *testing.T) {
	for given, want := range map[string]string{
		":6060": "127.0.0.1:6060", "127.0.0.1:6060": "127.0.0.1:6060", "[::1]:6060": "[::1]:6060", "0.0.0.0:6060": "0.0.0.0:6060", "0": "0",
	} {
		got, err := parse([]string{configFile(t), "--debug-bind-address=" + given})
		if err != nil || got.options.DebugAddress != want {
			t.Errorf("%s: serves at %q, error %v, want %q", given, got.options.DebugAddress, err, want)
		}
	}
}

// TestSelf checks that Events are about the pod in the manifests' variables, and that there is none
// if one is missing.
func TestSelf(t *testing.T) {
	all := map[string]string{"POD_NAME": "webhook-1", "POD_NAMESPACE": "shunt-system", "POD_UID": "uid-1"}
	want := &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: "shunt-system", Name: "webhook-1", UID: "uid-1"}
	if diff := cmp.Diff(want, self(func(name string) string { return all[name] })); diff != "" {
		t.Errorf("reference (-want +got):\n%s", diff)
	}
	for missing := range all {
		got := self(func(name string) string {
			if name == missing {
				return ""
			}
			return all[name]
		})
		if got != nil {
			t.Errorf("without %s it is %v, want none", missing, got)
		}
	}
}

// TestAPIServerIsNotRateLimited checks that lookups of namespaces do not wait for the client's own
// rate limit.
func TestAPIServerIsNotRateLimited(t *testing.T) {
	api, err := apiServer(kubeconfigFile(t))
	if err != nil {
		t.Fatal(err)
	}
	if api.QPS >= 0 {
		t.Errorf("%v requests a second, want no limit", api.QPS)
	}
}

// kubeconfigFile returns a kubeconfig for an API server that does not exist.
func kubeconfigFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := `{"clusters":[{"name":"c","cluster":{"server":"https://127.0.0.1:1"}}],` +
		`"contexts":[{"name":"c","context":{"cluster":"c"}}],"current-context":"c"}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestBadArguments checks that all that is wrong is reported at once, with flag, value and what is
// accepted, and with exit code 2.
func TestBadArguments(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte(configType+"initImages: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		says []string
	}{
		{[]string{"--nope"}, []string{"--nope", "accepted: the flags that --help lists"}},
		{[]string{"--webhook-port=x"}, []string{"--webhook-port", `"x"`}},
		{
			[]string{
				"--webhook-port=65536", "--cert-dir=", "--log-level=loud", "--log-format=xml", "--shutdown-delay=1m", "--count-pods=1s",
				"more",
			},
			[]string{
				"--webhook-port: invalid value 65536; accepted: a port from 1 to 65535", `--cert-dir: invalid value ""; accepted: a folder`,
				`--log-level: invalid value "loud"; accepted: debug, info, warn, error`,
				"--shutdown-delay: invalid value 1m0s; accepted: 0s to 20s",
				"--count-pods: invalid value 1s; accepted: 1m or longer, or 0s for never",
				`--log-format: invalid value "xml"; accepted: json, text`, `unexpected argument "more"; accepted: flags only`,
			},
		},
		{
			[]string{"--metrics-bind-address=8080", "--health-probe-bind-address=:99999", "--debug-bind-address="},
			[]string{
				`--debug-bind-address: invalid value ""; accepted: host:port`,
				`--metrics-bind-address: invalid value "8080"; accepted: host:port`, `--health-probe-bind-address: invalid value ":99999"`,
			},
		},
		{[]string{"--revision=A_"}, []string{`--revision: Invalid value: "A_"`}},
		{[]string{"--config=" + bad}, []string{"--config " + bad, "initImages"}},
		{nil, []string{`--config: initImage: Invalid value: "shunt-init": nobody has set it; accepted: an image that the nodes can pull`}},
		{
			[]string{"--config=../../config/manager/config.yaml"},
			[]string{`--config: initImage: Invalid value: "registry.invalid/shunt-init:unset"`},
		},
		{[]string{"--config=/nowhere/at/all"}, []string{"--config: ", "/nowhere/at/all"}},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			err := run(t.Context(), test.args, &stdout, &stderr)
			if code := daemon.ExitCode(err); code != daemon.ExitArguments {
				t.Fatalf("exit code %d, want %d: %v", code, daemon.ExitArguments, err)
			}
			for _, words := range test.says {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("error %q does not say %q", err, words)
				}
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout %q", stdout.String())
			}
		})
	}
}

func TestVersionAndHelp(t *testing.T) {
	for arg, want := range map[string]string{"--version": "shunt-webhook dev\n", "--help": "--health-probe-bind-address"} {
		var stdout, stderr bytes.Buffer
		if err := run(t.Context(), []string{arg}, &stdout, &stderr); err != nil {
			t.Errorf("%s: %v", arg, err)
		}
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("%s: %q does not say %q", arg, stdout.String(), want)
		}
	}
}

// TestShutdownDelay checks the time between the signal and the end.
func TestShutdownDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told, tell := context.WithCancel(t.Context())
		ctx, stop := delayed(told, 5*time.Second)
		defer stop()
		time.Sleep(time.Hour)
		tell()
		from := time.Now()
		<-ctx.Done()
		if gone := time.Since(from); gone != 5*time.Second {
			t.Errorf("it ended after %s, want 5 s", gone)
		}
	})
}

// TestNoAPIServer checks that an error that is not in the arguments has exit code 1.
func TestNoAPIServer(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	var stdout, stderr bytes.Buffer
	for _, args := range [][]string{nil, {"--kubeconfig=/nowhere/at/all"}} {
		args = append(args, configFile(t))
		err := run(t.Context(), args, &stdout, &stderr)
		if code := daemon.ExitCode(err); code != daemon.ExitFailed {
			t.Errorf("%q: exit code %d, want %d: %v", args, code, daemon.ExitFailed, err)
		}
	}
}
