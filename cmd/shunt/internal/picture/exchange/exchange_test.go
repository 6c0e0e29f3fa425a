package exchange

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// podsOf returns pods with rules of all systems, of others, and of nftables' own.
func podsOf(t *testing.T) []trace.Pod {
	t.Helper()
	var pods []trace.Pod
	for _, args := range []string{
		"", "-m TPROXY -o 3306 -i 10.0.0.0/8,fd00::/8", "--system ambient", "--system legacy", "--redirect-dns --drop-invalid",
	} {
		spec, _, err := interception.ParseArgs(strings.Fields(args))
		if err != nil {
			t.Fatal(err)
		}
		pod := trace.Wanted("shunt-init "+args, spec, ruleset.Families)
		pod.Built = nil
		pods = append(pods, pod)
	}
	listings, err := filepath.Glob("../../../../../test/rules/testdata/listings/*.rules")
	if err != nil || len(listings) == 0 {
		t.Fatal(listings, err)
	}
	for _, name := range listings {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		set, err := ruleset.Parse(ruleset.IPv4, string(text))
		if err != nil {
			t.Fatal(err)
		}
		pods = append(pods, trace.Pod{Name: name, Sides: []trace.Side{{
			Family: ruleset.IPv4, Host: trace.InventedHost(), Sets: []ruleset.RuleSet{set}, Unread: []string{"a flow table"},
		}}})
	}
	return append(pods, nativePod())
}

// nativePod has a chain of nftables, with what only those have.
func nativePod() trace.Pod {
	ports := ruleset.Ports{Ranges: interception.NewPortRanges(interception.PortRange{First: 1, Last: 9})}
	packets := uint64(7)
	rules := []ruleset.Rule{
		{Matches: []ruleset.Match{ruleset.OpaqueMatch{Args: []string{"meta", "cgroup", "7"}}}, Target: ruleset.Sequence{
			ruleset.SetMark{Value: 1, Mask: 0xff}, ruleset.DNAT{Address: netip.MustParseAddr("10.0.0.7"), Port: 81},
		}},
		{Comment: "counts </script>", Packets: &packets},
		{Matches: []ruleset.Match{ports}, Target: ruleset.Jump{Chain: "more", Goto: true}},
	}
	set := ruleset.RuleSet{Family: ruleset.IPv4, Party: "nft", Tables: []ruleset.Table{{Name: "ip mesh", Chains: []ruleset.Chain{
		{Name: "out", Policy: "DROP", Base: &ruleset.Base{Hook: "OUTPUT", Priority: -5, NAT: true}, Rules: rules},
		{Name: "more", Rules: []ruleset.Rule{{Target: ruleset.Accept}}},
	}}}}
	side := trace.Side{Family: ruleset.IPv4, Host: trace.InventedHost(), Sets: []ruleset.RuleSet{set}}
	return trace.Pod{Name: "native", Sides: []trace.Side{side}}
}

// TestPods writes pods as JSON and reads them: they are the same.
func TestPods(t *testing.T) {
	for _, pod := range podsOf(t) {
		text, err := json.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		var read trace.Pod
		if err := json.Unmarshal(text, &read); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(read, pod) {
			t.Errorf("%s is read as\n%+v\nand was\n%+v", pod.Name, read, pod)
		}
	}
}

// TestDesk asks for all paths of all pods: the answers are those of the pods before
// they were written.
func TestDesk(t *testing.T) {
	pods := podsOf(t)
	var document Document
	for _, pod := range pods {
		document.Subjects = append(document.Subjects, Subject{Modes: []Mode{{Pod: pod, Paths: PathsOf(pod, trace.Paths(pod))}}})
	}
	text, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	desk, err := Open(text)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for i, pod := range pods {
		view, err := desk.View(i, 0)
		if err != nil {
			t.Fatal(err)
		}
		for at, path := range trace.Paths(pod) {
			if path.Journey.Connection.From == "" {
				continue
			}
			journey, err := desk.Ask(i, 0, view.Paths[at].Question)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := asJSON(t, journey), asJSON(t, path.Journey); got != want {
				t.Errorf("%s: %+v:\n%s\nwanted\n%s", pod.Name, view.Paths[at].Question, got, want)
			}
			asked++
		}
	}
	if asked < 100 {
		t.Errorf("only %d questions", asked)
	}
	for _, wrong := range [][2]int{{-1, 0}, {len(pods), 0}, {0, 1}, {0, -1}} {
		if _, err := desk.View(wrong[0], wrong[1]); err == nil {
			t.Errorf("there is a pod %v", wrong)
		}
	}
}

func asJSON(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestUntried tells the page what was not tried, as a path without a question.
func TestUntried(t *testing.T) {
	var text strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&text, "-A OUTPUT -d 10.%d.%d.0/24 -j RETURN\n", i/250, i%250)
	}
	set, err := ruleset.Parse(ruleset.IPv4, "*nat\n"+text.String()+"COMMIT\n")
	if err != nil {
		t.Fatal(err)
	}
	side := trace.Side{Family: ruleset.IPv4, Host: trace.InventedHost(), Sets: []ruleset.RuleSet{set}}
	pod := trace.Pod{Sides: []trace.Side{side}}
	paths := PathsOf(pod, trace.Paths(pod))
	if last := paths[len(paths)-1]; last.Name != "not tried" || last.Question != (trace.Question{}) {
		t.Errorf("the last path is %+v", last)
	}
}

// TestShape draws the chains of a hook in the kernel's order, with what rules jump to.
func TestShape(t *testing.T) {
	pod := nativePod()
	const text = "*filter\n:OUTPUT DROP [0:0]\n-A OUTPUT -p tcp -m comment --comment why -j ACCEPT\nCOMMIT\n"
	filter, err := ruleset.Parse(ruleset.IPv4, text)
	if err != nil {
		t.Fatal(err)
	}
	pod.Sides[0].Sets = append([]ruleset.RuleSet{filter}, pod.Sides[0].Sets...)
	shape := shapeOf(pod.Sides[0])
	want := []BaseName{{"nft ip mesh", "out"}, {"filter", "OUTPUT"}}
	if got := shape.Hooks["OUTPUT"]; !reflect.DeepEqual(got, want) {
		t.Errorf("OUTPUT: %v, wanted %v", got, want)
	}
	if got := shape.Tables["nft ip mesh"].Chains["out"].Rules[2]; got.To != "more" {
		t.Errorf("%+v does not jump to more", got)
	}
	if got := shape.Tables["nft ip mesh"].Chains["out"].Rules[1]; got.Packets == nil || *got.Packets != 7 {
		t.Errorf("%+v has not counted 7 packets", got)
	}
	if got := shape.Tables["filter"].Chains["OUTPUT"].Rules[0]; got.Why != "why" || strings.Contains(got.Text, "why") {
		t.Errorf("%+v: the comment is not apart", got)
	}
}
