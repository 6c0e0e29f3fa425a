//go:build linux

package rules

import (
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/netns"
)

// TestNFTReadsEveryTable feeds the text of each case's tables to nft(8), each over those of the case
// before.
func TestNFTReadsEveryTable(t *testing.T) {
	netns.Require(t, "nft")
	t.Parallel()
	pod := newLab(t).Pod
	for _, c := range cases(t) {
		if c.Refused() {
			continue
		}
		spec, _, err := c.Spec()
		if err != nil {
			t.Fatal(err)
		}
		var text string
		for _, family := range ruleset.Families {
			table, err := nft.Text(ruleset.Build(spec, family), interception.BackendNFTables)
			if err != nil {
				t.Fatalf("%s: %v", c.Name, err)
			}
			text += table
		}
		cmd := pod.Command(t.Context(), "nft", "-f", "-")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s\n%s", c.Name, err, out, text)
		}
	}
}

// listNative lists Shunt's native table, without counters; "" if there is none.
func listNative(t *testing.T, pod *netns.NS, family ruleset.Family) string {
	t.Helper()
	name := map[ruleset.Family]string{ruleset.IPv4: "ip", ruleset.IPv6: "ip6"}[family] + " " + nft.TableName
	if tables := run(t, pod, "nft", "list", "tables"); !strings.Contains(tables, "table "+name+"\n") {
		return ""
	}
	return run(t, pod, "nft", append([]string{"--stateless", "list", "table"}, strings.Fields(name)...)...)
}

// checkNativeReadBack compares what package kernel reads of Shunt's native table with what was
// built, and looks for expressions of xtables, which nft(8) lists as xt.
func checkNativeReadBack(t *testing.T, pod *netns.NS, built ruleset.RuleSet) {
	t.Helper()
	opts := interception.DefaultOptions()
	opts.Backend = interception.BackendNFTables
	var read ruleset.RuleSet
	err := pod.Do(func() error {
		host, err := kernel.Open(t.Context(), opts)
		if err != nil {
			return err
		}
		defer host.Close()
		read, err = host.Rules(t.Context(), built.Family)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	built.Routing = ruleset.Routing{}
	if diff := ruleset.Diff(nft.Normal(built), read); diff != nil {
		t.Errorf("%s, as read back, differs from what was built: %q", built.Family, diff)
	}
	table, err := nft.Compile(built)
	if err != nil {
		t.Fatal(err)
	}
	rules := 0
	for _, c := range table.Chains {
		rules += len(c.Rules)
	}
	listed := listNative(t, pod, built.Family)
	if found := strings.Count(listed, " comment \""); found != rules {
		t.Errorf("%s: %d rules in the namespace, %d were built:\n%s", built.Family, found, rules, listed)
	}
	for _, word := range []string{"xt match", "xt target", "managed by iptables"} {
		if strings.Contains(listed, word) {
			t.Errorf("%s: %q of xtables is in:\n%s", built.Family, word, listed)
		}
	}
}
