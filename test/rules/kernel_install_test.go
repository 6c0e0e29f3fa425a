//go:build linux

package rules

import (
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/netns"
)

// apply installs a spec with package kernel.
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
		result, err = kernel.Apply(t.Context(), host, want, true)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// istioArguments returns those of Istio's init container.
func istioArguments(mode interception.Mode) []string {
	return []string{
		"-p", "15001", "-z", "15006", "-u", "1337", "-m", string(mode),
		"-i", "*", "-x", "", "-b", "*", "-d", "15090,15021,15020",
	}
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

// TestTraffic sends every kind of connection through pods whose rules were installed in every way,
// with every kind of proxy.
func TestTraffic(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy")
	t.Parallel()
	shuntInit := buildShuntInit(t)
	byPackage := func(backend interception.Backend) func(*testing.T, *netns.NS, interception.Spec) {
		return func(t *testing.T, pod *netns.NS, spec interception.Spec) {
			opts := interception.DefaultOptions()
			opts.Backend = backend
			apply(t, pod, spec, opts)
		}
	}
	byCommand := func(t *testing.T, pod *netns.NS, spec interception.Spec) {
		run(t, pod, shuntInit, istioArguments(spec.Mode())...)
	}
	installers := map[string]func(*testing.T, *netns.NS, interception.Spec){
		"package-nft":    byPackage(interception.BackendNFT),
		"package-legacy": byPackage(interception.BackendLegacy),
		"package-native": byPackage(interception.BackendNFTables),
		"shunt-init":     byCommand,
		"shunt-init-over-the-other-mode": func(t *testing.T, pod *netns.NS, spec interception.Spec) {
			other := map[interception.Mode]interception.Mode{
				interception.ModeRedirect: interception.ModeTProxy, interception.ModeTProxy: interception.ModeRedirect,
			}
			run(t, pod, shuntInit, istioArguments(other[spec.Mode()])...)
			byCommand(t, pod, spec)
		},
		"shunt-init-strict-rp_filter": func(t *testing.T, pod *netns.NS, spec interception.Spec) {
			byCommand(t, pod, spec)
			setStrictFilter(t, pod)
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

// setStrictFilter makes a namespace drop packets that arrive on another interface than the one that
// answers leave by, as many distributions do.
func setStrictFilter(t *testing.T, pod *netns.NS) {
	t.Helper()
	for _, device := range []string{"all", "default", "lo", "eth0"} {
		if err := pod.Sysctl("net/ipv4/conf/"+device+"/rp_filter", "1"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWithoutIPv6 checks that a namespace without IPv6 gets only the IPv4 rules.
func TestWithoutIPv6(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy")
	t.Parallel()
	packets, err := crossings("in tcp 10.0.0.1:8080 -> redirect 15006\nout tcp 10.0.0.9:80 -> redirect 15001")
	if err != nil {
		t.Fatal(err)
	}
	for _, backend := range backends {
		t.Run(string(backend), func(t *testing.T) {
			opts := interception.DefaultOptions()
			opts.Backend = backend
			a := newArena(t, interception.Default(), packets, func(pod *netns.NS) {
				if err := pod.Sysctl("net/ipv6/conf/all/disable_ipv6", "1"); err != nil {
					t.Fatal(err)
				}
				apply(t, pod, interception.Default(), opts)
				nft, native := save(t, pod, interception.BackendNFT, ruleset.IPv6), save(t, pod, interception.BackendNFTables, ruleset.IPv6)
				if strings.Contains(nft, "-A ") || native != "" {
					t.Errorf("IPv6 rules without IPv6:\n%s%s", nft, native)
				}
				if names := run(t, pod, "cat", "/proc/thread-self/net/ip6_tables_names"); names != "" {
					t.Errorf("IPv6 tables without IPv6: %q", names)
				}
			})
			for _, x := range packets {
				if err := a.cross(t.Context(), x); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
