//go:build linux

package rules

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/netns"
)

const (
	// mostRanges is the most that the injector accepts, and iptables gets.
	mostRanges = interception.MaxRanges
	// initMemory is the init container's limit of 64Mi, minus the program, twice, in the folder
	// that it shares.
	initMemory = 64<<20 - 2*6<<20
)

// TestLongLists gives shunt-init the longest lists that the injector accepts, and the memory that
// it has in a pod, for a first run and a second one.
func TestLongLists(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy")
	t.Parallel()
	bin := buildShuntInit(t)
	for _, backend := range backends {
		for _, mode := range []interception.Mode{interception.ModeRedirect, interception.ModeTProxy} {
			for _, family := range ruleset.Families {
				t.Run(fmt.Sprint(backend, " ", mode, " ", family), func(t *testing.T) {
					t.Parallel()
					spec := interception.Default()
					spec.System, spec.OutboundExcludeCIDRs = systemOf(mode), manyRanges(family, mostRanges)
					opts := interception.DefaultOptions()
					opts.Backend = backend
					args := interception.Args(spec, opts)
					pod := newLab(t).Pod
					memory := newMemory(t)
					for _, want := range []string{"applied, verified", "nothing to change, read back"} {
						name, inside := memory.Inside(bin, args...)
						if said := run(t, pod, name, inside...); !strings.Contains(said, want) {
							t.Errorf("it says %q, want %q", said, want)
						}
					}
					peak, err := memory.Peak()
					if err != nil {
						t.Fatal(err)
					}
					t.Logf("%d ranges took %d MiB", mostRanges, peak>>20)
				})
			}
		}
	}
}

func systemOf(mode interception.Mode) interception.System {
	if mode == interception.ModeTProxy {
		return interception.SystemTProxy
	}
	return interception.SystemRedirect
}

// TestTooLongLists gives shunt-init a range more than iptables gets: it takes a native table if nobody
// asked for another backend, and touches nothing otherwise.
func TestTooLongLists(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy")
	t.Parallel()
	bin, spec := buildShuntInit(t), interception.Default()
	spec.OutboundExcludeCIDRs = manyRanges(ruleset.IPv4, mostRanges+1)
	for _, backend := range iptablesBackends {
		opts := interception.DefaultOptions()
		opts.Backend = backend
		pod := quietLab(t).Pod
		checkPreflightError(t, pod, pod.Command(t.Context(), bin, interception.Args(spec, opts)...),
			"10001 rules for as many IP ranges; accepted over iptables: 10000 ranges, or --backend nftables")
		run(t, pod, bin, "-m", "REDIRECT", "--backend="+string(backend), "--skip-verify")
		checkPreflightError(t, pod, pod.Command(t.Context(), bin, interception.Args(spec, interception.DefaultOptions())...),
			"or --backend nftables") // auto stays with the backend that has the rules
	}
	pod := quietLab(t).Pod
	said := run(t, pod, bin, append(interception.Args(spec, interception.DefaultOptions()), "--skip-verify")...)
	if want := "over nftables (iptables-nft 1."; !strings.Contains(said, want) || !strings.Contains(said, " would need 10001 rules") {
		t.Errorf("by itself it says %q, want %q", said, want)
	}
	spec.OutboundExcludeCIDRs = nil
	said = run(t, pod, bin, interception.Args(spec, interception.DefaultOptions())...)
	if !strings.Contains(said, "it holds the rules already") {
		t.Errorf("without the list it says %q", said)
	}
	checkOnly(t, pod, interception.BackendNFTables)
}

// manyRanges returns a long list that cannot be merged.
func manyRanges(family ruleset.Family, count int) interception.Prefixes {
	var ranges interception.Prefixes
	for i := range count {
		addr, bits := netip.AddrFrom4([4]byte{100, byte(i >> 8), byte(i), 128}), 25
		if family == ruleset.IPv6 {
			addr, bits = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 8), byte(i), byte(i >> 8), byte(i)}), 64
		}
		ranges = append(ranges, netip.PrefixFrom(addr, bits))
	}
	return ranges
}

func newMemory(t *testing.T) *netns.MemoryCgroup {
	t.Helper()
	memory, err := netns.NewMemoryCgroup(initMemory)
	if errors.Is(err, netns.ErrNoCgroup) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := memory.Close(); err != nil {
			t.Error(err)
		}
	})
	return memory
}
