package bench_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/bench"
)

var update = flag.Bool("update", false, "rewrite the counts of rules in docs/benchmarks.md")

const (
	docs     = "../../docs"
	document = docs + "/benchmarks.md"
	listings = "../rules/testdata/listings"
)

func metSection(tb testing.TB) bench.Section {
	tb.Helper()
	all, err := bench.CompareMet(listings)
	if err != nil {
		tb.Fatal(err)
	}
	return bench.Section{Name: "rules met", Text: bench.MetTable(all)}
}

// TestDocumentCounts holds that the document has the counts of today's rules.
func TestDocumentCounts(t *testing.T) {
	section := metSection(t)
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		filled, err := section.Fill(string(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(document, []byte(filled), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	documented, err := section.In(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(section.Text, documented); diff != "" {
		t.Errorf("%s counts other rules than there are; go test ./test/bench -update rewrites it (-rules +document):\n%s", document, diff)
	}
}

// BenchmarkRulesMet prints the counts, which no machine makes other.
func BenchmarkRulesMet(b *testing.B) {
	var section bench.Section
	for b.Loop() {
		section = metSection(b)
	}
	fmt.Printf("\n%s:\n\n%s\n", section.Name, section.Text)
}

// TestLaterPackets holds what our rules are ordered for: no packet of an
// established connection meets more rules than it would in the listing.
func TestLaterPackets(t *testing.T) {
	all, err := bench.CompareMet(listings)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		for i, ours := range c.Ours {
			if listing := c.Listing[i]; ours.Later > listing.Later {
				t.Errorf("%s: a later packet, %s, meets %d rules; in the listing %d", c.System, ours.Flow, ours.Later, listing.Later)
			}
		}
	}
}

// TestCountMet counts rules that a person can count.
func TestCountMet(t *testing.T) {
	rs, err := ruleset.Parse(ruleset.IPv4, strings.Join([]string{
		"*mangle", ":OTHER - [0:0]",
		"-A PREROUTING -s 192.0.2.1/32 -j OTHER",
		"-A PREROUTING -i eth0 -j OTHER",
		"-A OTHER -p udp -j ACCEPT",
		"-A OTHER -j RETURN",
		"-A OTHER -j DROP",
		"-A OUTPUT -o lo -j ACCEPT",
		"-A OUTPUT -p tcp -j ACCEPT",
		"COMMIT", "*nat",
		"-A OUTPUT -m owner --uid-owner 1000 -p tcp -j REDIRECT --to-ports 15001",
		"COMMIT", "",
	}, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []bench.Met{
		{Flow: "client to proxy", Opens: true, First: 4, Later: 4},          // two of PREROUTING, two of OTHER
		{Flow: "proxy to app", Opens: true, First: 1 + 1 + 2, Later: 1 + 2}, // OUTPUT, nat, and over lo PREROUTING
		{Flow: "app to proxy, its answer", Later: 1 + 2},                    // to 127.0.0.6, over lo
		{Flow: "proxy to client, the answer", Later: 2},                     // OUTPUT
		{Flow: "app to proxy", Opens: true, First: 2 + 1 + 2, Later: 2 + 2}, // OUTPUT, nat, and over lo PREROUTING
		{Flow: "proxy to server", Opens: true, First: 2 + 1, Later: 2},      // OUTPUT, nat
		{Flow: "server to proxy, its answer", Later: 4},                     // as the client's
		{Flow: "proxy to app, the answer", Later: 1 + 2},                    // over lo
	}
	if diff := cmp.Diff(want, bench.CountMet(interception.Default(), rs)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
