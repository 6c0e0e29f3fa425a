//go:build linux

package rules

import (
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

// changesOfOthers are what other parties put into a namespace, a line each:
// commands of iptables by the backend's name, or with "native" the chains of an
// nft table of their own.
const changesOfOthers = `
nft -t raw -A OUTPUT -o eth1 -j CT --notrack
nft -t raw -A OUTPUT ! -o eth0 -p tcp -j CT --notrack
nft -t raw -A PREROUTING -i eth1 -j CT --notrack
nft -t raw -A OUTPUT -o tun0 -j CT --notrack
nft -t raw -A OUTPUT -p tcp --dport 9090 -j CT --notrack
nft -t raw -A PREROUTING -p tcp --dport 9090 -j CT --notrack
nft -t raw -A PREROUTING -p tcp -m multiport --dports 9000:9100 -j CT --notrack
nft -t raw -A PREROUTING -p udp --dport 9090 -j CT --notrack
nft -t raw -A OUTPUT -m owner --uid-owner 2000 -j CT --notrack
nft -t raw -A OUTPUT -s 10.1.0.1 -j CT --notrack
nft -t raw -A OUTPUT ! -d 10.0.0.0/16 -p tcp -j CT --notrack
nft -t raw -N THEIRS; nft -t raw -A OUTPUT -o eth1 -g THEIRS; nft -t raw -A THEIRS -p tcp ! --dport 9090 -j RETURN; nft -t raw -A THEIRS -j CT --notrack
nft -t nat -A OUTPUT -p tcp --dport 9090 -j REDIRECT --to-ports 9999
nft -t nat -A PREROUTING -p tcp --dport 9090 -j REDIRECT --to-ports 9999
nft -t nat -I PREROUTING -p tcp --dport 9090 -j REDIRECT --to-ports 9999
nft -t nat -I OUTPUT -p tcp --dport 9090 -j ACCEPT
nft -t mangle -A OUTPUT -o eth1 -j MARK --set-mark 0x539
nft -t mangle -A OUTPUT -o eth1 -j MARK --set-mark 0x40
nft -t mangle -A PREROUTING -i eth0 -j MARK --set-mark 0x539
nft -t mangle -A PREROUTING -i eth0 -j MARK --set-mark 0x40
nft -t mangle -A PREROUTING -d 10.1.0.1 -j MARK --set-mark 0x539
nft -t mangle -A INPUT -j CONNMARK --set-mark 0x539
nft -t mangle -A INPUT -i eth1 -p tcp -j CONNMARK --set-mark 0x539
nft -t mangle -A INPUT -j CONNMARK --set-mark 0x111
nft -t mangle -A INPUT -j CONNMARK --set-mark 0x10000/0x10000
nft -t mangle -A PREROUTING -i eth1 -j MARK --set-mark 0x77; legacy -t nat -A PREROUTING -m mark --mark 0x77 -p tcp --dport 9090 -j REDIRECT --to-ports 9999
legacy -t nat -A OUTPUT -o eth1 -p tcp -j REDIRECT --to-ports 9999
legacy -t nat -A PREROUTING -i eth0 -p tcp -j REDIRECT --to-ports 22
legacy -t nat -A PREROUTING -p tcp --dport 9090 -j REDIRECT --to-ports 9999
legacy -t nat -A OUTPUT -p tcp --dport 9090 -j REDIRECT --to-ports 9999
legacy -t nat -A OUTPUT -p tcp --dport 9090 -j ACCEPT
legacy -t nat -A OUTPUT -p tcp --dport 9090 -j DNAT --to-destination 10.0.0.9:80
legacy -t nat -A PREROUTING -p tcp --dport 22 -j REDIRECT --to-ports 9999
legacy -t nat -A OUTPUT -d 127.0.0.11 -p tcp --dport 53 -j DNAT --to-destination 127.0.0.11:9999
legacy -t raw -A OUTPUT -p tcp --dport 9090 -j CT --notrack
legacy -t mangle -A PREROUTING -p tcp --dport 9090 -j TPROXY --on-port 9999 --tproxy-mark 1
legacy -t mangle -A OUTPUT -d 10.78.0.9 -j MARK --set-mark 0x539
native chain c { type nat hook output priority -110; tcp dport 9090 redirect to :9999; }
native chain c { type nat hook output priority -90; tcp dport 9090 redirect to :9999; }
native chain c { type nat hook prerouting priority -110; tcp dport 9090 redirect to :9999; }
native chain c { type nat hook output priority -110; ip daddr 10.78.0.9 tcp dport 80 dnat ip to 10.0.0.9:80; }
native chain c { type nat hook output priority -110; oifname "eth1" tcp dport { 80, 9000-9100 } dnat ip to 10.0.0.9; }
native chain c { type filter hook output priority -310; oifname "eth1" notrack; }
native chain c { type filter hook output priority -310; meta oif eth1 ct state untracked,invalid notrack; }
native chain c { type filter hook output priority -150; notrack; }
native chain c { type filter hook prerouting priority -310; tcp dport 9090 notrack; }
native chain c { type filter hook prerouting priority -310; tcp dport vmap { 9090 : jump d, 8080 : accept }; }; chain d { notrack; }
native chain c { type filter hook output priority -310; meta skuid 2000-3000 notrack; }
native chain c { type filter hook output priority -310; ip daddr { 10.77.0.0/16, 10.78.0.5-10.78.0.20 } tcp dport != 80 notrack; }
native chain c { type filter hook prerouting priority -160; iifname "eth1" meta mark set 0x539; }
native chain c { type filter hook prerouting priority -110; iifname "eth1" meta mark set 0x539; }
native chain c { type filter hook input priority 0; iifname "eth1" ct mark set 0x539; }
native chain c { type route hook output priority -140; oifname "eth1" meta mark set 0x539; }
native chain c { type filter hook prerouting priority -160; ip protocol tcp tcp dport 9090 tproxy ip to :9999 meta mark set 1 accept; }
native chain c { type filter hook output priority 0; tcp flags syn tcp option maxseg size set 1200; }
native chain c { type filter hook forward priority 0; policy drop; }
native chain c { type filter hook output priority -310; ip6 daddr fd00::/64 tcp dport 9090 notrack; }
nft -t mangle -A OUTPUT -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1200
nft -t mangle -A POSTROUTING -j TTL --ttl-set 64
nft -t filter -A INPUT -p tcp -m recent --set --name theirs
nft -t filter -A OUTPUT -p tcp -m string --string never --algo bm -j REJECT
nft -t raw -A OUTPUT -p tcp -m statistic --mode nth --every 1 --packet 0 -j CT --notrack
nft -t nat -A POSTROUTING -o eth1 -j MASQUERADE
blocks nft -t filter -A INPUT -p tcp --dport 15006 -j REJECT --reject-with tcp-reset; nft -t filter -A INPUT -p tcp --dport 15001 -j REJECT --reject-with tcp-reset
blocks nft -t filter -A INPUT -i eth1 -p tcp -j DROP
blocks native chain c { type filter hook input priority 10; policy drop; iifname "lo" accept; ct state established accept; }
blocks legacy -t raw -A PREROUTING -i eth1 -p tcp --dport 9090 -j DROP
`

// TestVerifyAgreesAboutOthers makes each change of others in a pod with rules
// of ours, crosses it with real connections, and asks verification about it:
// the kernel decides which changes are harmful.
func TestVerifyAgreesAboutOthers(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy", "nft")
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
		if line == "" {
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
func isHop(text string) bool { return strings.Contains(text, "from=") && strings.Contains(text, "uid=1337") }

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
