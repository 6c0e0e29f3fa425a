//go:build linux

package rules

import (
	_ "embed"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/netns"
)

// In these tests the pod has a second interface, with hosts behind it.
const secondInterface = "eth1"

var behindSecond = netip.MustParsePrefix("10.78.0.0/16")

// othersPort is where rules of others send connections.
const othersPort = 9999

// othersArguments are of systems that together have every kind of rule.
var othersArguments = []struct {
	backend interception.Backend
	args    string
}{
	{interception.BackendNFT, "-m REDIRECT --redirect-dns --capture-all-dns"},
	{interception.BackendLegacy, "-m REDIRECT"},
	{interception.BackendNFT, "-m TPROXY"},
	{interception.BackendNFT, "--system=ambient"},
	{interception.BackendNFTables, "-m REDIRECT --redirect-dns --capture-all-dns"},
	{interception.BackendNFTables, "-m TPROXY"},
}

// crossingsOfOthers are connections that show what rules of others do, for each system those that
// concern it. The walk gives their wanted ends without such rules, which is checked against the
// kernel first.
const crossingsOfOthers = `
in tcp 10.0.0.1:8080
in tcp 10.0.0.1:9090
in tcp 10.0.0.1:22
in from=10.78.0.9 if=eth1 tcp 10.0.0.1:8080
in from=10.78.0.9 if=eth1 tcp 10.0.0.1:22
in from=10.78.0.9 if=eth1 tcp 10.1.0.1:9090
in udp 10.0.0.1:9090
out tcp 10.0.0.9:80
out tcp 10.0.0.9:9090
out uid=2000 tcp 10.0.0.9:80
out tcp 10.78.0.9:80
out tcp 10.78.0.9:9090
out from=10.1.0.1 tcp 10.78.0.9:80
out uid=1337 mark=0x539 tcp 10.0.0.9:80
out uid=1337 mark=0x539 tcp 10.78.0.9:9090
out tcp 10.0.0.1:8080
out tcp 127.0.0.1:8080
out tcp 127.0.0.11:53
out udp 10.0.0.9:53
out uid=1337 from=127.0.0.6 tcp 10.0.0.1:8080
out uid=1337 from=127.0.0.6 tcp 10.0.0.1:9090
out uid=1337 mark=0x539 from=10.0.0.9 tcp 10.0.0.1:8080
out uid=1337 mark=0x539 from=10.78.0.9 tcp 10.0.0.1:9090
in tcp [fd00::1]:9090
out tcp [fd00::9]:9090
`

// changesOfOthers is testdata/others.txt.
//
//go:embed testdata/others.txt
var changesOfOthers string

// TestVerifyAgreesAboutOthers makes each change of others in a pod with rules of ours, opens real
// connections, and compares verification's result: the kernel decides which changes are harmful.
func TestVerifyAgreesAboutOthers(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy", "nft")
	t.Parallel()
	for _, system := range othersArguments {
		t.Run(string(system.backend)+" "+system.args, func(t *testing.T) {
			t.Parallel()
			testOthers(t, system.backend, system.args)
		})
	}
}

func testOthers(t *testing.T, backend interception.Backend, args string) {
	o := newOthers(t, backend, args)
	if got, told := o.cross(t, longTime); got != unchanged {
		t.Fatalf("without rules of others, connections are %s: %q", got, told)
	}
	counts := map[effect]int{}
	for line := range strings.Lines(changesOfOthers) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		change, blocks := strings.CutPrefix(line, "blocks ")
		do, undo := commandsOf(change)
		run(t, o.lab.Pod, "sh", "-ec", do)
		verdict := o.verify(t)
		got, told := o.cross(t, shortTime)
		if !agree(got, verdict, blocks) {
			got, told = o.cross(t, longTime)
		}
		run(t, o.lab.Pod, "sh", "-ec", undo)
		counts[got]++
		if !agree(got, verdict, blocks) {
			t.Errorf("%s: connections are %s, and verification says %+v\n%s", line, got, verdict, strings.Join(told, "\n"))
		}
	}
	if verdict := o.verify(t); len(verdict.Findings)+len(verdict.Warnings) > 0 {
		t.Errorf("in the end: %+v", verdict)
	}
	t.Logf("%v", counts)
	if counts[bypassed] == 0 || counts[blocked] == 0 || counts[unchanged] == 0 {
		t.Errorf("the changes have these effects: %v; some of each are expected", counts)
	}
}

// agree reports whether verification matches the kernel. A change that blocks connections may be a
// finding as well. One that only might block is a warning.
func agree(got effect, verdict kernel.Verdict, blocks bool) bool {
	found, warned := len(verdict.Findings) > 0, len(verdict.Warnings) > 0
	switch got {
	case bypassed:
		return found && !blocks
	case blocked:
		return warned && !found || found && !blocks
	}
	return !found && !blocks
}

// commandsOf returns the shell commands that make a change, and those that undo it.
func commandsOf(change string) (do, undo string) {
	if chains, native := strings.CutPrefix(change, "native "); native {
		return "nft 'table inet theirs {\n" + strings.ReplaceAll(chains, "}; ", "}\n") + "\n}'", "nft delete table inet theirs"
	}
	for command := range strings.SplitSeq(change, "; ") {
		backend, rule, _ := strings.Cut(command, " ")
		command = "iptables-" + backend + " -w 60 " + rule
		do += command + "\n"
		undo = strings.NewReplacer(" -A ", " -D ", " -I ", " -D ", " -N ", " -X ").Replace(command) + "\n" + undo
	}
	return do, undo
}

// effect is what a change does to connections.
type effect string

const (
	unchanged effect = "as they were"
	blocked   effect = "blocked"
	bypassed  effect = "taken elsewhere"
)

// others is a pod with our rules that others change.
type others struct {
	*arena
	spec      interception.Spec
	opts      interception.Options
	want      []ruleset.RuleSet
	crossings []Crossing
}

func newOthers(t *testing.T, backend interception.Backend, args string) *others {
	t.Helper()
	others := &others{}
	var err error
	if others.spec, others.opts, err = interception.ParseArgs(argumentsOn(backend, args)); err != nil {
		t.Fatal(err)
	}
	host := Pod
	host.Addresses = append([]netip.Addr{netip.MustParseAddr("10.1.0.1")}, host.Addresses...)
	for _, family := range ruleset.Families {
		others.want = append(others.want, ruleset.Build(others.spec, family))
	}
	for line := range strings.Lines(crossingsOfOthers) {
		line = strings.TrimSpace(line)
		if line == "" || isHop(line) && strings.Contains(line, "127.0.0.6") != (others.spec.System == interception.SystemRedirect) {
			continue
		}
		read, err := crossings(line + " -> direct")
		if err != nil {
			t.Fatal(err)
		}
		x := read[0]
		x.Text = line
		rs := others.want[0]
		if x.Packet.Family == ruleset.IPv6 {
			rs = others.want[1]
		}
		if x.Want = ruleset.Trace(rs, host, x.Packet).Outcome; x.Want.Fate == ruleset.Local {
			continue // nobody sends such a packet
		}
		others.crossings = append(others.crossings, x)
	}
	second := Crossing{Packet: ruleset.Packet{Interface: secondInterface, Protocol: "tcp", Dst: Pod.Addresses[0], DstPort: 22}}
	others.arena = newArena(t, others.spec, append([]Crossing{second}, others.crossings...), func(pod *netns.NS) {
		if err := pod.Route(behindSecond, secondInterface); err != nil {
			t.Fatal(err)
		}
		apply(t, pod, others.spec, others.opts)
	})
	listenBoth(t, others.lab.Pod, "tcp", othersPort, netns.ListenOptions{Name: "others", Identity: app, Transparent: true})
	others.own = host.Addresses
	for _, name := range []string{"all", "default", "eth0", secondInterface} {
		if err := others.lab.Pod.Sysctl("net/ipv4/conf/"+name+"/route_localnet", "0"); err != nil {
			t.Fatal(err)
		}
	}
	return others
}

func (o *others) verify(t *testing.T) (verdict kernel.Verdict) {
	t.Helper()
	err := o.lab.Pod.Do(func() error {
		host, err := kernel.Open(t.Context(), o.opts)
		if err != nil {
			return err
		}
		defer host.Close()
		verdict, err = kernel.Verify(t.Context(), host, o.want, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return verdict
}

// How long an answer is awaited, and how long if verification does not agree with the first result:
// a busy machine is not a failure.
const (
	shortTime = 400 * time.Millisecond
	longTime  = 5 * time.Second
)

// cross opens all connections at once and returns their ends.
func (o *others) cross(t *testing.T, patience time.Duration) (worst effect, told []string) {
	t.Helper()
	ends, texts := make([]effect, len(o.crossings)), make([]string, len(o.crossings))
	var waiting sync.WaitGroup
	for i, x := range o.crossings {
		waiting.Go(func() { ends[i], texts[i] = o.end(t, x, patience) })
	}
	waiting.Wait()
	worst = unchanged
	for i, end := range ends {
		if end != unchanged {
			told = append(told, fmt.Sprintf("%s, wanted %s: %s", o.crossings[i].Text, o.crossings[i].Want, texts[i]))
		}
		if end == bypassed || end == blocked && worst == unchanged {
			worst = end
		}
	}
	return worst, told
}

// isHop reports whether a crossing is the proxy's inbound hop.
func isHop(text string) bool {
	return strings.Contains(text, "from=") && strings.Contains(text, "uid=1337")
}

// end opens one connection. A connection that is not intercepted may end where others send it, but
// not at the proxy. The proxy's connection to the app may not.
func (o *others) end(t *testing.T, crossing Crossing, patience time.Duration) (effect, string) {
	reply, err := o.send(t.Context(), crossing.Packet, patience)
	got, known := o.fate(crossing.Packet, reply, err)
	told := fmt.Sprintf("%v (%+v, %v)", got, reply, err)
	for _, fate := range got {
		switch {
		case fate == crossing.Want:
			return unchanged, told
		case fate.Fate == ruleset.Dropped, fate.Fate == ruleset.Rejected:
			if crossing.Want.Fate == ruleset.Dropped || crossing.Want.Fate == ruleset.Rejected {
				return unchanged, told
			}
			return blocked, told
		}
	}
	toProxy := known && reply.Server == serverProxy
	if crossing.Want.Fate == ruleset.Direct && !toProxy && !isHop(crossing.Text) ||
		crossing.Packet.Direction == ruleset.Out && crossing.Packet.Dst.IsLoopback() {
		return unchanged, told
	}
	return bypassed, told
}
