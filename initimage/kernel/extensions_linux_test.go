package kernel

import (
	"bytes"
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to ask the kernel for its netfilter extensions")
	}
}

// TestRequireTakesEverySystem checks that Require accepts a kernel that can run the rules, as
// test/rules shows of this one.
func TestRequireTakesEverySystem(t *testing.T) {
	requireRoot(t)
	for args, spec := range systems(t) {
		for _, name := range backends {
			h := &Host{backend: backend{name: name}}
			if err := h.Require(spec, both(spec)); err != nil {
				t.Errorf("%s over %s: %v", args, name, err)
			}
		}
	}
}

func TestRequireNamesWhatIsMissing(t *testing.T) {
	requireRoot(t)
	rs := ruleset.RuleSet{Family: ruleset.IPv6, Tables: []ruleset.Table{{Name: "nat", Chains: []ruleset.Chain{{
		Name: "OUTPUT", Rules: []ruleset.Rule{{
			Matches: []ruleset.Match{ruleset.Owner{First: 1, Last: 1}, ruleset.OpaqueMatch{Args: []string{"-m", "nosuchmatch"}}},
			Target:  ruleset.OpaqueTarget{Args: []string{"-j", "NOSUCHTARGET"}},
		}},
	}}}}}
	h := &Host{backend: backend{name: interception.BackendNFT}}
	err := h.Require(interception.Default(), []ruleset.RuleSet{rs})
	if !errors.Is(err, ErrPreflight) {
		t.Fatalf("error %v", err)
	}
	for _, want := range []string{`match "nosuchmatch" for IPv6`, `target "NOSUCHTARGET" for IPv6`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not named: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "owner") {
		t.Errorf("what is there is named: %v", err)
	}
}

// TestRequireNamesTheModule breaks the name of an expression, or of a type of chain, in a
// transaction: to the kernel it is one whose module is missing.
func TestRequireNamesTheModule(t *testing.T) {
	inNamespace(t, func() {
		tables := tablesOf(t, "-m", "TPROXY", "--redirect-dns", "--capture-all-dns", "--reject-udp-ports", "443")
		for name, want := range map[string][]string{
			"tproxy": {"nft_tproxy: modprobe nft_tproxy"}, "redir": {"nft_redir: modprobe nft_redir"}, "ct": {"nft_ct: modprobe nft_ct"},
			"fib": {"modprobe nft_fib_ipv4", "modprobe nft_fib_ipv6"}, "reject": {"modprobe nft_reject_ipv4", "modprobe nft_reject_ipv6"},
			"nat": {"nft_chain_nat: modprobe nft_chain_nat"},
		} {
			broken := mustBatch(t, nil, tables)
			other := strings.Repeat("x", len(name))
			broken.data = bytes.ReplaceAll(broken.data, []byte("\x00"+name+"\x00"), []byte("\x00"+other+"\x00"))
			err := explainLacking(broken.try())
			var lacking *lackingError
			if !errors.As(err, &lacking) || len(lacking.what) != len(want) {
				t.Errorf("without %s: %v", name, err)
				continue
			}
			for _, sentence := range want {
				if !strings.Contains(err.Error(), sentence) {
					t.Errorf("without %s: %q is not in: %v", name, sentence, err)
				}
			}
		}
		if generation, err := nftGeneration(); err != nil || generation > 1 {
			t.Errorf("nf_tables changed: generation %d, %v", generation, err)
		}
		var lacking *lackingError
		for _, errno := range []unix.Errno{unix.EOPNOTSUPP, unix.EINVAL} { // what a kernel without nf_tables says to a batch
			for _, err := range []error{errno, errors.Join(&batchError{errno: errno, what: wholeBatch})} {
				explained := explainLacking(err)
				if !errors.As(explained, &lacking) || !strings.Contains(explained.Error(), "modprobe nf_tables") {
					t.Errorf("%v is explained as %v", err, explained)
				}
			}
		}
		if err := explainLacking(&batchError{errno: unix.EEXIST, what: "elements of set a"}); errors.As(err, &lacking) {
			t.Errorf("elements that are there are explained as %v", err)
		}
	})
}

// breaking returns a kernel's answers to a transaction if it did not have an expression.
func breaking(name string) func(*batch) error {
	return func(b *batch) error {
		b.data = bytes.ReplaceAll(b.data, []byte("\x00"+name+"\x00"), []byte("\x00"+strings.Repeat("x", len(name))+"\x00"))
		return b.try()
	}
}

// TestRequireNamesEachExpression takes away one of the expressions that a system's rules have after
// the other. Preflight must name its module, and the backends that need no such expression.
func TestRequireNamesEachExpression(t *testing.T) {
	inNamespace(t, func() {
		seen := map[string]bool{}
		for args, spec := range systems(t) {
			names := expressionsOf(t, spec)
			for name := range names {
				seen[name] = true
				h := &Host{backend: backend{name: interception.BackendNFTables}, try: breaking(name)}
				err := h.Require(spec, both(spec))
				module := "nft_" + name
				if known, is := modules[name]; is {
					module = strings.ReplaceAll(known, "%s", "4")
				}
				if !errors.Is(err, ErrPreflight) || !strings.Contains(err.Error(), "this kernel lacks "+module+": modprobe "+module) ||
					!strings.HasSuffix(err.Error(), ", or --backend nft, or --backend legacy") {
					t.Errorf("%s without %s: %v", args, name, err)
				}
				for other := range names {
					if other != name && strings.Contains(err.Error(), "nft_"+other) {
						t.Errorf("%s without %s: %s is named, too: %v", args, name, other, err)
					}
				}
			}
		}
		checkWithoutConntrack(t, seen)
		known := []string{"bitwise", "cmp", "immediate", "lookup", "meta", "payload"} // of nf_tables itself
		for name := range modules {
			if !slices.Contains([]string{"chain", "elements", "set"}, name) { // which are no expressions
				known = append(known, name)
			}
		}
		slices.Sort(known)
		if diff := cmp.Diff(known, slices.Sorted(maps.Keys(seen))); diff != "" {
			t.Errorf("expressions whose modules are known, and those of all systems (-known +systems):\n%s", diff)
		}
	})
}

// checkWithoutConntrack does so with the rules that one backend alone has.
func checkWithoutConntrack(t *testing.T, seen map[string]bool) {
	t.Helper()
	spec, _, err := interception.ParseArgs([]string{"-m", "TPROXY", "--no-conntrack", "--backend=nftables"})
	if err != nil {
		t.Fatal(err)
	}
	for name := range expressionsOf(t, spec) {
		seen[name] = true
	}
	const want = "this kernel lacks nft_socket: modprobe nft_socket"
	h := &Host{backend: backend{name: interception.BackendNFTables}, try: breaking("socket")}
	if err := h.Require(spec, both(spec)); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("without conntrack and nft_socket: %v", err)
	}
}

// expressionsOf returns the names of the expressions that the rules of a spec need.
func expressionsOf(t *testing.T, spec interception.Spec) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	h := &Host{backend: backend{name: interception.BackendNFTables}, try: func(b *batch) error {
		for _, part := range b.parts {
			for _, e := range part.expressions {
				names[e.name] = true
			}
		}
		return nil
	}}
	if err := h.Require(spec, both(spec)); err != nil {
		t.Error(err)
	}
	return names
}

// TestRequireGoesOn lets auto choose where iptables-nft lacks an extension: the next backend is
// used, and the reason named. A backend that was asked for is not left.
func TestRequireGoesOn(t *testing.T) {
	inNamespace(t, func() {
		want := []ruleset.RuleSet{{Family: ruleset.IPv4, Tables: []ruleset.Table{{Name: "filter", Chains: []ruleset.Chain{{
			Name: "INPUT", Rules: []ruleset.Rule{{Target: ruleset.Reject{With: "icmp-port-unreachable"}}}}}}}}}
		h := &Host{backend: backend{name: interception.BackendNFT}}
		h.others = []interception.Backend{interception.BackendNFTables}
		if err := h.Require(interception.Default(), want); err != nil || h.Native() {
			t.Errorf("with all extensions it chose %s: %v", h, err)
		}
		foreign := ruleset.OpaqueMatch{Args: []string{"-m", "nosuchmatch"}}
		want[0].Tables[0].Chains[0].Rules[0].Matches = []ruleset.Match{foreign}
		if err := h.Require(interception.Default(), want); !errors.Is(err, ErrPreflight) || h.Native() {
			t.Errorf("no backend can take the rules, and it chose %s: %v", h, err)
		}
		h.lacks = func(ruleset.Family, ruleset.Extension) (bool, error) { return false, errUnanswered }
		want[0].Tables[0].Chains[0].Rules[0].Matches = nil
		err := h.Require(interception.Default(), want)
		if err != nil || !h.Native() || !strings.Contains(h.String(), "iptables-nft would need nft_compat") {
			t.Errorf("without nft_compat it chose %s: %v", h, err)
		}
		h = &Host{backend: backend{name: interception.BackendNFT}, lacks: h.lacks}
		if err := h.Require(interception.Default(), want); err != nil || h.Native() {
			t.Errorf("asked for, it is left for %s: %v", h, err)
		}
	})
}

// TestRequireBoundsIPTables holds what each backend bears: one of iptables the most ranges, and not
// one more; and auto leaves it where another can have a list that is not short.
func TestRequireBoundsIPTables(t *testing.T) {
	inNamespace(t, func() {
		const most, accepted = interception.MaxRanges, "accepted over iptables: 10000 ranges, or --backend nftables"
		for _, c := range []struct {
			first  interception.Backend
			others []interception.Backend
			ranges int
			want   string // the backend, or the error
		}{
			{interception.BackendNFT, nil, most, "iptables-nft"},
			{interception.BackendNFT, nil, most + 1, "10001 rules for as many IP ranges; " + accepted},
			{interception.BackendLegacy, nil, most + 1, accepted},
			{interception.BackendNFTables, nil, most + 1, "nftables"},
			{interception.BackendNFT, backends, shortLists, "iptables-nft"},
			{interception.BackendNFT, backends, shortLists + 1, "nftables (iptables-nft would need 1001 rules for as many IP ranges)"},
			{interception.BackendLegacy, backends, most + 1, "nftables (iptables-legacy would need 10001 rules for as many IP ranges)"},
			{interception.BackendNFT, []interception.Backend{interception.BackendLegacy}, most, "iptables-nft"},
			{interception.BackendNFT, []interception.Backend{interception.BackendLegacy}, most + 1, accepted},
		} {
			spec := interception.Default()
			for i := range c.ranges {
				p := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, byte(i >> 8), byte(i), 128}), 25)
				if i%2 == 0 {
					spec.OutboundExcludeCIDRs = append(spec.OutboundExcludeCIDRs, p)
				} else {
					spec.OutboundCIDRs = interception.CIDRs{Prefixes: append(spec.OutboundCIDRs.Prefixes, p)}
				}
			}
			h := &Host{backend: backend{name: c.first}}
			h.others = c.others
			err := h.Require(spec, []ruleset.RuleSet{ruleset.Build(spec, ruleset.IPv4)})
			if err != nil && !errors.Is(err, ErrPreflight) {
				t.Errorf("%s with %d ranges: %v is no ErrPreflight", c.first, c.ranges, err)
			}
			got := h.String()
			if err != nil {
				got = err.Error()
			}
			if !strings.HasSuffix(got, c.want) {
				t.Errorf("%s with %d ranges: %q, want %q", c.first, c.ranges, got, c.want)
			}
		}
	})
}
