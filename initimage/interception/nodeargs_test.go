package interception

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestNodeRulesComeBack checks that the agent reads what the injector wrote, and that the gate, which
// has the arguments with more options, makes the same digest of them.
func TestNodeRulesComeBack(t *testing.T) {
	spec := DefaultFor(SystemTProxy)
	spec.OutboundExcludeCIDRs = Prefixes{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	written := NodeRules{Spec: spec, IPv6: IPv6On}
	read, err := ParseNodeRules(written.String())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(written, read, cmpopts.EquateComparable(netip.Prefix{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("-written +read:\n%s", diff)
	}
	gate := append([]string{GateCommand}, Args(spec, Options{Backend: BackendNFTables, IPv6: IPv6On, Share: "/shunt", Envoy: "{}"})...)
	ofGate, opts, err := ParseArgs(gate)
	if err != nil {
		t.Fatal(err)
	}
	if got := (NodeRules{Spec: ofGate, IPv6: opts.IPv6}).Digest(); got != read.Digest() {
		t.Errorf("the gate's digest is %s, the agent's %s", got, read.Digest())
	}
	weaker := written
	weaker.Spec.OutboundExcludeCIDRs = Prefixes{netip.MustParsePrefix("0.0.0.0/0")}
	if weaker.Digest() == written.Digest() {
		t.Error("other rules have the same digest")
	}
}

// TestNodeRulesOfAStranger checks that an annotation cannot make the agent do more than write rules
// into the pod's own namespace.
func TestNodeRulesOfAStranger(t *testing.T) {
	for text, want := range map[string]string{
		``:                  "JSON",
		`{}`:                "JSON",
		`[]`:                "--backend=nftables",
		`["--backend=nft"]`: "--backend=nftables",
		`["--backend=nftables","--netns=/proc/1/ns/net"]`:    "--backend=nftables",
		`["--backend=nftables","--share=/etc"]`:              "--backend=nftables",
		`["--backend=nftables","--share=/etc","--envoy={}"]`: "--backend=nftables",
		`["--backend=nftables","--remove"]`:                  "--backend=nftables",
		`["--backend=nftables","--verify"]`:                  "--backend=nftables",
		`["--backend=nftables","--dry-run"]`:                 "--backend=nftables",
		`["--backend=nftables","--skip-verify"]`:             "--backend=nftables",
		`["--backend=nftables","--redirect-dns"]`:            "--dns-servers",
		`["--backend=nftables","-p","http"]`:                 `"http"`,
		`["--backend=nftables","rm"]`:                        `"rm"`,
		`["` + strings.Repeat("x", MaxNodeRules) + `"]`:      "accepted: up to 262144",
	} {
		if rules, err := ParseNodeRules(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, %v; want an error with %s", text, rules, err, want)
		}
	}
}

// TestNodeRulesBearOnlyShortLists checks that no list of an annotation makes more rules than the agent can
// write while the container runtime waits.
func TestNodeRulesBearOnlyShortLists(t *testing.T) {
	for flag, element := range map[string]string{
		flagUIDs: "%d", flagGIDs: "%d", flagVirtual: "e%d", flagExcludeInterfaces: "e%d", flagOwnerGroups: "%d",
		flagExcludeOwnerGroups: "%d", flagDNSServers: "fd00::%x",
	} {
		for length, accepted := range map[int]bool{maxNodeNames: true, maxNodeNames + 1: false} {
			var list []string
			for i := range length {
				list = append(list, fmt.Sprintf(element, i))
			}
			text := fmt.Sprintf(`["--backend=nftables","--redirect-dns","--capture-all-dns","--%s=%s"]`, flag, strings.Join(list, ","))
			if flag == flagDNSServers {
				text = strings.Replace(text, `"--capture-all-dns",`, "", 1)
			}
			_, err := ParseNodeRules(text)
			if (err == nil) != accepted || err != nil && !strings.Contains(err.Error(), "--"+flag+": 257 elements; accepted") {
				t.Errorf("%d elements of --%s: %v", length, flag, err)
			}
		}
	}
}
