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

// The pod of others has a second interface, and hosts behind it.
const secondInterface = "eth1"

var behindSecond = netip.MustParsePrefix("10.78.0.0/16")

// othersPort is where rules of others take connections to.
const othersPort = 9999

// othersArguments are of systems that between them have every kind of rule.
var othersArguments = []struct {
	backend interception.Backend
	args    string
}{
	{interception.BackendNFT, "-m REDIRECT --redirect-dns --capture-all-dns"},
	{interception.BackendLegacy, "-m REDIRECT"},
	{interception.BackendNFT, "-m TPROXY"},
	{interception.BackendNFT, "--system=ambient"},
}

// crossingsOfOthers are the connections that show what rules of others do; of
// each system those that it is about. How they end without such rules is what
// the walk says, and is held against the kernel first.
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

// TestVerifyAgreesAboutOthers makes each change of others in a pod with rules
// of ours, crosses it with real connections, and asks verification about it:
// the kernel decides which changes are harmful.
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

// agree reports whether verification says what the kernel does. What has
// connections go nowhere may be a finding as well; what is there to block, and
// does no more, is a warning.
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

// commandsOf are the lines of a shell that make a change, and that undo it.
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
	o := &others{}
	var err error
	if o.spec, o.opts, err = interception.ParseArgs(argumentsOn(backend, args)); err != nil {
		t.Fatal(err)
	}
	host := Pod
	host.Addresses = append([]netip.Addr{netip.MustParseAddr("10.1.0.1")}, host.Addresses...)
	for _, family := range ruleset.Families {
		o.want = append(o.want, ruleset.Build(o.spec, family))
	}
	for line := range strings.Lines(crossingsOfOthers) {
		line = strings.TrimSpace(line)
		if line == "" || isHop(line) && strings.Contains(line, "127.0.0.6") != (o.spec.System == interception.SystemRedirect) {
			continue
		}
		read, err := crossings(line + " -> direct")
		if err != nil {
			t.Fatal(err)
		}
		x := read[0]
		x.Text = line
		rs := o.want[0]
		if x.Packet.Family == ruleset.IPv6 {
			rs = o.want[1]
		}
		if x.Want = ruleset.Trace(rs, host, x.Packet).Outcome; x.Want.Fate == ruleset.Local {
			continue // nobody sends that
		}
		o.crossings = append(o.crossings, x)
	}
	second := Crossing{Packet: ruleset.Packet{Interface: secondInterface, Protocol: "tcp", Dst: Pod.Addresses[0], DstPort: 22}}
	o.arena = newArena(t, o.spec, append([]Crossing{second}, o.crossings...), func(pod *netns.NS) {
		if err := pod.Route(behindSecond, secondInterface); err != nil {
			t.Fatal(err)
		}
		apply(t, pod, o.spec, o.opts)
	})
	listenBoth(t, o.lab.Pod, "tcp", othersPort, netns.ListenOptions{Name: "others", Identity: app, Transparent: true})
	o.own = host.Addresses
	for _, name := range []string{"all", "default", "eth0", secondInterface} {
		if err := o.lab.Pod.Sysctl("net/ipv4/conf/"+name+"/route_localnet", "0"); err != nil {
			t.Fatal(err)
		}
	}
	return o
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

// An answer is waited for so long, and where verification does not agree with
// what came of it so long: a busy machine is no finding.
const (
	shortTime = 400 * time.Millisecond
	longTime  = 5 * time.Second
)

// cross opens all connections at once and says what has become of them.
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

// end opens one connection. One that is left alone may end where others have it
// end, but for the proxy. The proxy's hop to the app may not.
func (o *others) end(t *testing.T, x Crossing, patience time.Duration) (effect, string) {
	reply, err := o.send(t.Context(), x.Packet, patience)
	got, known := o.fate(x.Packet, reply, err)
	told := fmt.Sprintf("%v (%+v, %v)", got, reply, err)
	for _, fate := range got {
		switch {
		case fate == x.Want:
			return unchanged, told
		case fate.Fate == ruleset.Dropped, fate.Fate == ruleset.Rejected:
			if x.Want.Fate == ruleset.Dropped || x.Want.Fate == ruleset.Rejected {
				return unchanged, told
			}
			return blocked, told
		}
	}
	toProxy := known && reply.Server == serverProxy
	if x.Want.Fate == ruleset.Direct && !toProxy && !isHop(x.Text) || x.Packet.Direction == ruleset.Out && x.Packet.Dst.IsLoopback() {
		return unchanged, told
	}
	return bypassed, told
}
