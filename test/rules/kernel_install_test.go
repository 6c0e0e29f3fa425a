//go:build linux

package rules

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/netns"
)

// apply installs a spec by package kernel.
func apply(t *testing.T, pod *netns.NS, spec interception.Spec, opts interception.Options) kernel.Result {
	t.Helper()
	var result kernel.Result
	err := pod.Do(func() error {
		host, err := kernel.Open(t.Context(), opts)
		if err != nil {
			return err
		}
		defer host.Close()
		var want []ruleset.RuleSet
		for _, family := range host.Families() {
			want = append(want, ruleset.Build(spec, family))
		}
		result, err = kernel.Apply(t.Context(), host, want)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// istioArguments are those of the init container that Istio injects.
func istioArguments(mode interception.Mode) []string {
	return []string{
		"-p", "15001", "-z", "15006", "-u", "1337", "-m", string(mode),
		"-i", "*", "-x", "", "-b", "*", "-d", "15090,15021,15020",
	}
}

// buildShuntInit builds the command that users run.
func buildShuntInit(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "shunt-init")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "github.com/shunt-dev/shunt/cmd/shunt-init")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building shunt-init: %v\n%s", err, out)
	}
	return bin
}

// run runs a program in a namespace and returns what it printed.
func run(t *testing.T, ns *netns.NS, name string, args ...string) string {
	t.Helper()
	out, err := ns.Command(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// TestTraffic sends every kind of connection through pods whose rules were
// installed in each way that there is, with each proxy that there can be.
func TestTraffic(t *testing.T) {
	netns.Require(t)
	shuntInit := buildShuntInit(t)
	byPackage := func(backend interception.Backend) func(*testing.T, *netns.NS, interception.Spec) {
		return func(t *testing.T, pod *netns.NS, spec interception.Spec) {
			opts := interception.DefaultOptions()
			opts.Backend = backend
			apply(t, pod, spec, opts)
		}
	}
	installers := map[string]func(*testing.T, *netns.NS, interception.Spec){
		"package-nft":    byPackage(interception.BackendNFT),
		"package-legacy": byPackage(interception.BackendLegacy),
		"shunt-init": func(t *testing.T, pod *netns.NS, spec interception.Spec) {
			run(t, pod, shuntInit, istioArguments(spec.Mode())...)
		},
	}
	for installer, install := range installers {
		for system, proxies := range identities {
			for name, id := range proxies {
				spec := interception.Default()
				spec.System = system
				t.Run(installer+"/"+string(spec.Mode())+"/"+name, func(t *testing.T) {
					t.Parallel()
					newTraffic(t, spec, id, func(t *testing.T, pod *netns.NS) { install(t, pod, spec) }).run(t)
				})
			}
		}
	}
}
