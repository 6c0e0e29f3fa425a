package trace

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

var update = flag.Bool("update", false, "rewrite testdata")

// TestText prints the paths that matter as a table, and those of IPv4 step by step,
// in both modes and with all that reads DNS.
func TestText(t *testing.T) {
	for name, args := range map[string]string{
		"redirect": "-m REDIRECT", "tproxy": "-m TPROXY",
		"dns": "-m REDIRECT --redirect-dns --capture-all-dns -x 10.1.0.0/16,fd01::/64 -o 3306",
	} {
		t.Run(name, func(t *testing.T) {
			pod := wanted(t, args)
			pod.Name = args
			paths := Paths(pod)
			var out bytes.Buffer
			answers := []Answer{{Pod: pod, Paths: paths}}
			for _, path := range paths {
				if path.Family == 4 && (name != "dns" || strings.HasPrefix(path.Name, "dns")) {
					answers = append(answers, Answer{Pod: pod, Paths: []Path{path}})
				}
			}
			if err := Text(&out, answers); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".txt", out.Bytes())
		})
	}
}

// TestTextOfTrouble prints journeys that end badly, or of which it is not known how.
func TestTextOfTrouble(t *testing.T) {
	routed := "# ip -4 rule add fwmark 0x539/0xffffffff lookup 133\n# ip -4 route add local default dev lo table 133\n"
	listing, err := os.ReadFile("../../test/rules/testdata/listings/tproxy.rules")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ rules, packet string }{
		// Istio's TPROXY rules with a proxy of uid 1337.
		"loop": {string(listing) + routed, "in from=10.0.0.9 tcp 10.0.0.1:8080"},
		// The same with our rules, and without the route that keeps answers in.
		"lost": {ruleset.Build(interception.DefaultFor(interception.SystemTProxy), ruleset.IPv4).String(),
			"in from=10.0.0.9 tcp 10.0.0.1:8080"},
		"unknown": {"*filter\n-A INPUT -m set --match-set bad src -m comment --comment \"who is bad\" -j DROP\nCOMMIT\n" +
			"*nat\n-A PREROUTING -p tcp -m geoip --src-cc XX -j REDIRECT --to-ports 15006\n-A OUTPUT -o lo -j RETURN\nCOMMIT\n",
			"in from=10.0.0.9 tcp 10.0.0.1:8080"},
		"blocked": {"*filter\n:OUTPUT DROP [0:0]\n-A OUTPUT -p tcp --dport 443 -j ACCEPT\nCOMMIT\n", "out tcp 10.0.0.9:80"},
		"martian": {"", "in from=10.0.0.9 tcp 0.0.0.0:80"},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := ruleset.Parse(ruleset.IPv4, test.rules)
			if err != nil {
				t.Fatal(err)
			}
			if name == "lost" {
				set.Routing = ruleset.Routing{}
			}
			side := Side{Family: ruleset.IPv4, Host: InventedHost(), Sets: []ruleset.RuleSet{set}, Routing: set.Routing}
			pod := Pod{Name: name, Sides: []Side{side}, Proxy: Identify([]Side{side})}
			actor := App
			if strings.HasPrefix(test.packet, "in") {
				actor = Outside
			}
			var out bytes.Buffer
			if err := Text(&out, []Answer{{Pod: pod, Paths: []Path{{Family: 4, Journey: ask(t, pod, actor, test.packet)}}}}); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".txt", out.Bytes())
		})
	}
}

// TestForms prints one journey in each form, and all paths as a graph.
func TestForms(t *testing.T) {
	pod := wanted(t, "-m TPROXY")
	one := []Answer{{Pod: pod, Paths: []Path{{Family: 4, Journey: ask(t, pod, Outside, "in from=10.0.0.9 tcp 10.0.0.1:8080")}}}}
	all := []Answer{{Pod: pod, Paths: Paths(pod)}}
	for name, answers := range map[string][]Answer{"journey": one, "paths": all} {
		var mermaid, dot bytes.Buffer
		if err := Mermaid(&mermaid, answers); err != nil {
			t.Fatal(err)
		}
		if err := Dot(&dot, answers); err != nil {
			t.Fatal(err)
		}
		golden(t, name+".mmd", mermaid.Bytes())
		golden(t, name+".dot", dot.Bytes())
	}
	text, err := json.MarshalIndent(Document(one), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "journey.json", append(text, '\n'))
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}
