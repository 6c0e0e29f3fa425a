//go:build linux

package rules

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.org/x/tools/txtar"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/netns"
)

var agreementSeed = flag.Uint64("agreement.seed", 1, "where TestAgreement's random rules begin")

// How many rule sets TestAgreement makes of each kind, and how many packets it sends through each.
const (
	shortDrafts   = 6
	longDrafts    = 60
	shotsPerDraft = 40
)

// draft is a rule set of one family, before it is in the kernel.
type draft struct {
	family  ruleset.Family
	args    []string // of shunt-init, if rules of ours are in it
	tables  string   // for iptables-restore
	native  string   // for nft -f
	routing ruleset.Routing
	// counted means that the walk's rules can be told by their places in tables.
	counted bool
}

// kinds of drafts: on which backend, with whose rules.
type draftKind struct {
	name    string
	backend interception.Backend
	draft   func(c *chance) (draft, error)
}

var draftKinds = []draftKind{
	{"ours/nft", interception.BackendNFT, func(c *chance) (draft, error) { return c.withOurs("", "") }},
	{"ours/legacy", interception.BackendLegacy, func(c *chance) (draft, error) { return c.withOurs("", "") }},
	{"ours/nftables", interception.BackendNFTables, (*chance).oursNative},
	{"ours and others/nft", interception.BackendNFT, func(c *chance) (draft, error) {
		return c.withOurs(c.iptablesRules(tableNames, 2), c.iptablesRules(tableNames, 3))
	}},
	{"ours and others/legacy", interception.BackendLegacy, func(c *chance) (draft, error) {
		return c.withOurs(c.iptablesRules(tableNames, 2), c.iptablesRules(tableNames, 3))
	}},
	{"others/nft", interception.BackendNFT, (*chance).onlyOthers},
	{"others/legacy", interception.BackendLegacy, (*chance).onlyOthers},
	{"others native/nft", interception.BackendNFT, (*chance).onlyNative},
	{"ours and others native/nft", interception.BackendNFT, (*chance).oursAndNative},
	{"ours and others native/legacy", interception.BackendLegacy, (*chance).oursAndNative},
}

// withOurs returns rules of ours for random flags, with rules of others before and behind them.
func (c *chance) withOurs(before, behind string) (draft, error) {
	args := c.arguments()
	spec, _, err := interception.ParseArgs(args)
	if err != nil {
		return draft{}, fmt.Errorf("%q: %w", args, err)
	}
	built := ruleset.Build(spec, c.family)
	c.learn(built)
	tables := map[string]*ruleset.Table{}
	for _, name := range tableNames {
		tables[name] = &ruleset.Table{Name: name}
		for _, hook := range hooksOf[name] {
			tables[name].Chains = append(tables[name].Chains, ruleset.Chain{Name: hook, Policy: "ACCEPT"})
		}
	}
	for i, text := range []string{before, built.String(), behind} {
		set, err := ruleset.Parse(c.family, text)
		if err != nil {
			return draft{}, fmt.Errorf("%w\n%s", err, text)
		}
		for _, t := range set.Tables {
			merge(tables[t.Name], t, fmt.Sprintf("%d-", i))
		}
	}
	d := draft{family: c.family, args: args, routing: built.Routing, counted: true}
	for _, name := range tableNames {
		d.tables += tables[name].String()
	}
	return d, nil
}

// merge appends a table's rules. Chains of others get names of their own.
func merge(into *ruleset.Table, from ruleset.Table, prefix string) {
	rename := func(name string) string {
		if strings.HasPrefix(name, ruleset.ChainPrefix) {
			return name
		}
		return prefix + name
	}
	for _, chain := range from.Chains {
		for i, r := range chain.Rules {
			if jump, is := r.Target.(ruleset.Jump); is {
				jump.Chain = rename(jump.Chain)
				chain.Rules[i].Target = jump
			}
		}
		if !chain.Builtin() {
			chain.Name = rename(chain.Name)
			into.Chains = append(into.Chains, chain)
			continue
		}
		at := slices.IndexFunc(into.Chains, func(have ruleset.Chain) bool { return have.Name == chain.Name })
		into.Chains[at].Rules = append(into.Chains[at].Rules, chain.Rules...)
		if chain.Policy == string(ruleset.Drop) {
			into.Chains[at].Policy = chain.Policy
		}
	}
}

// learn takes the values that rules name.
func (c *chance) learn(rs ruleset.RuleSet) {
	for _, t := range rs.Tables {
		for _, chain := range t.Chains {
			for _, r := range chain.Rules {
				if _, zone := r.Target.(ruleset.ConntrackZone); zone {
					c.zones = true
				}
				for _, m := range r.Matches {
					switch m := m.(type) {
					case ruleset.Ports:
						for _, ports := range m.Ranges {
							c.ports = append(c.ports, ports.First, ports.Last)
						}
					case ruleset.Destination:
						c.prefixes = append(c.prefixes, m.Prefix)
					case ruleset.Source:
						c.prefixes = append(c.prefixes, m.Prefix)
					case ruleset.Owner:
						c.ids = append(c.ids, m.First)
					case ruleset.Mark:
						c.marks = append(c.marks, m.Value)
					}
				}
			}
		}
	}
}

// onlyOthers returns rules of others, in half of all cases with the routing that TPROXY needs.
func (c *chance) onlyOthers() (draft, error) {
	d := draft{family: c.family, tables: c.iptablesRules(tableNames, 6), counted: true}
	if c.in100(50) && len(c.marks) > 0 {
		mark := one(c, c.marks...)
		d.routing.Rules = []ruleset.PolicyRule{{Mark: mark, Mask: one(c, mark, 0xffffffff), Table: 133}}
		d.routing.Routes = []ruleset.LocalRoute{{Table: 133}}
	}
	return d, nil
}

func (c *chance) oursNative() (draft, error) {
	d, err := c.withOurs("", "")
	if err != nil {
		return d, err
	}
	spec, _, _ := interception.ParseArgs(d.args)
	table, err := nft.Compile(ruleset.Build(spec, c.family))
	d.tables, d.native, d.counted = "", table.String(), false
	return d, err
}

func (c *chance) onlyNative() (draft, error) {
	return draft{family: c.family, native: c.nativeRules()}, nil
}

func (c *chance) oursAndNative() (draft, error) {
	d, err := c.withOurs("", "")
	d.native, d.counted = c.nativeRules(), true
	return d, err
}

// TestAgreement compares the walker with the kernel. It makes random rule sets, of shunt-init for
// random flags and of the matches and targets that others use, puts each into a namespace, and sends
// random packets through it. Where a packet ends and which rules count it must be what the walk says.
// Unlike TestKernelRandom, it sees where packets end, on all three backends and with tables of others,
// and sends frames from outside as they are, forged and invalid ones too; it does not see in which order
// a packet meets the rules.
func TestAgreement(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy", "nft")
	t.Parallel()
	drafts := shortDrafts
	if os.Getenv("LONG") == "true" {
		drafts = longDrafts
	}
	var sum sync.Mutex
	sent, agreed, unknown := 0, 0, 0
	t.Cleanup(func() {
		t.Logf("seed %d: of %d pairs of a rule set and a packet, the kernel and the walk agree about %d, and %d are unknown to the walk",
			*agreementSeed, sent, agreed, unknown)
	})
	for _, kind := range draftKinds {
		for _, family := range ruleset.Families {
			t.Run(kind.name+"/"+family.String(), func(t *testing.T) {
				t.Parallel()
				g := newProving(t, kind.backend, family)
				for i := range drafts {
					seed := *agreementSeed + uint64(i)
					c := &chance{Rand: rand.New(rand.NewPCG(seed, uint64(family))), family: family}
					d, err := kind.draft(c)
					if err != nil {
						t.Fatal(err)
					}
					g.compare(t, d, c.packetsFor(shotsPerDraft), fmt.Sprintf("seed %d", seed))
				}
				t.Logf("%d of %d packets agree, %d are unknown to the walk; %d of %d rule sets were refused",
					g.agreed, g.sent, g.unknown, g.refused, drafts)
				if g.agreed < g.sent*2/3 || g.refused > drafts/2 {
					t.Errorf("too few packets were compared")
				}
				sum.Lock()
				sent, agreed, unknown = sent+g.sent, agreed+g.agreed, unknown+g.unknown
				sum.Unlock()
			})
		}
	}
}

// proving is a pod that one rule set after the other is put into.
type proving struct {
	*wire
	backend                              interception.Backend
	family                               ruleset.Family
	put                                  draft
	sent, agreed, unknown, refused, told int
}

func newProving(t *testing.T, backend interception.Backend, family ruleset.Family) *proving {
	t.Helper()
	lab := newLab(t, "eth1")
	for key, value := range map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1", "net/ipv4/conf/all/rp_filter": "0",
		"net/ipv4/conf/eth0/rp_filter": "0", "net/ipv4/conf/eth1/rp_filter": "0", "net/ipv4/conf/all/route_localnet": "1",
		"net/netfilter/nf_conntrack_tcp_be_liberal": "1",
	} {
		if err := lab.Pod.Sysctl(key, value); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"eth0", "eth1"} { // whose neighbour discovery would be counted too
		if err := lab.Outside.Sysctl("net/ipv6/conf/"+name+"/disable_ipv6", "1"); err != nil {
			t.Fatal(err)
		}
	}
	return &proving{wire: newWire(t, lab), backend: backend, family: family}
}

// install puts a draft in place of the one before. It returns what the kernel, or the tool, says
// against it.
func (g *proving) install(t *testing.T, d draft) error {
	t.Helper()
	if out, err := g.feed(t, "flush ruleset\n"+observer()+d.native, "nft", "-f", "-"); err != nil {
		return fmt.Errorf("nft: %w\n%s", err, out)
	}
	if d.tables != "" {
		if out, err := g.feed(t, d.tables, g.tool()+"-restore"); err != nil {
			return fmt.Errorf("restore: %w\n%s%s", err, out, failing(d.tables, out))
		}
	}
	return g.lab.Pod.Do(func() error {
		host, err := kernel.Open(t.Context(), interception.Options{Backend: g.backend})
		if err != nil {
			return err
		}
		defer host.Close()
		if err := host.RemoveRouting(d.family, g.put.routing); err != nil {
			return err
		}
		g.put = d
		return host.AddRouting(d.family, d.routing)
	})
}

var lineNumber = regexp.MustCompile(`line (\d+)`)

// failing returns the lines of a text that a message names.
func failing(text, message string) string {
	lines, told := strings.Split(text, "\n"), ""
	for _, found := range lineNumber.FindAllStringSubmatch(message, -1) {
		if n, _ := strconv.Atoi(found[1]); n > 0 && n <= len(lines) {
			told += lines[n-1] + "\n"
		}
	}
	return told
}

// tool returns the name of the family's iptables.
func (g *proving) tool() string {
	backend := g.backend
	if backend == interception.BackendNFTables {
		backend = interception.BackendNFT
	}
	return map[ruleset.Family]string{ruleset.IPv4: "iptables-", ruleset.IPv6: "ip6tables-"}[g.family] + string(backend)
}

func (g *proving) feed(t *testing.T, text, name string, args ...string) (string, error) {
	t.Helper()
	cmd := g.lab.Pod.Command(t.Context(), name, args...)
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// read returns what the namespace holds, as shunt-init reads it.
func (g *proving) read(t *testing.T) (stack *ruleset.Stack, host ruleset.Host) {
	t.Helper()
	err := g.lab.Pod.Do(func() error {
		ns, err := kernel.Open(t.Context(), interception.Options{Backend: g.backend})
		if err != nil {
			return err
		}
		defer ns.Close()
		if host, err = ns.Addresses(); err != nil {
			return err
		}
		own, err := ns.Rules(t.Context(), g.family)
		if err != nil {
			return err
		}
		others, err := ns.Others(t.Context(), g.family)
		if err != nil {
			return err
		}
		routing, err := ns.Routing(g.family)
		if err != nil {
			return err
		}
		for i := range others {
			others[i].Tables = slices.DeleteFunc(others[i].Tables, func(table ruleset.Table) bool {
				return strings.HasSuffix(table.Name, " observer")
			})
		}
		for _, p := range routing.Addresses {
			host.Addresses = append(host.Addresses, p.Addr())
		}
		stack = ruleset.NewStack(routing, append([]ruleset.RuleSet{own}, others...)...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return stack, host
}

// compare sends packets through a draft and compares where they end, and what the rules have counted.
func (g *proving) compare(t *testing.T, d draft, shots []shot, name string) {
	t.Helper()
	if err := g.install(t, d); err != nil {
		g.refused++
		t.Logf("%s: %v", name, err)
		return
	}
	stack, host := g.read(t)
	known := shots[:0]
	for _, s := range shots {
		g.sent++
		if stack.Trace(host, s.Packet, nil).Outcome.Fate == ruleset.Unknown {
			g.unknown++
			continue
		}
		known = append(known, s)
	}
	differing, all := g.differences(t, d, stack, host, known)
	if len(differing) == 0 && all == "" {
		g.agreed += len(known)
		return
	}
	for i := range known {
		single := []shot{known[i]}
		if err := g.install(t, d); err != nil { // which sets the counts to 0
			t.Fatal(err)
		}
		if ends, counts := g.differences(t, d, stack, host, single); len(ends) == 0 && counts == "" {
			g.agreed++
			continue
		}
		if g.told++; g.told <= toldMost {
			t.Errorf("%s: the kernel disagrees:\n%s", name, g.describe(t, g.shrink(t, d, single[0]), single[0]))
		}
	}
	if g.agreed+g.unknown+g.told < g.sent {
		t.Errorf("%s: the kernel disagrees about all packets together, but not about each alone", name)
	}
}

// toldMost is how many disagreements are described, which takes some time.
const toldMost = 3

// shrink takes rules away as long as the kernel disagrees about a packet.
func (g *proving) shrink(t *testing.T, d draft, s shot) draft {
	t.Helper()
	disagrees := func(d draft) bool {
		if g.install(t, d) != nil {
			return false
		}
		stack, host := g.read(t)
		if stack.Trace(host, s.Packet, nil).Outcome.Fate == ruleset.Unknown {
			return false
		}
		ends, counts := g.differences(t, d, stack, host, []shot{s})
		return len(ends) > 0 || counts != ""
	}
	for _, text := range []*string{&d.tables, &d.native} {
		lines := strings.Split(*text, "\n")
		for i := len(lines) - 1; i >= 0; i-- {
			rule := strings.TrimSpace(lines[i])
			if rule == "" || strings.ContainsAny(rule[:1], "*:}C") || strings.HasSuffix(rule, "{") || strings.HasPrefix(rule, "type ") {
				continue
			}
			before := *text
			*text = strings.Join(slices.Concat(lines[:i], lines[i+1:]), "\n")
			if disagrees(d) {
				lines = slices.Delete(lines, i, i+1)
			} else {
				*text = before
			}
		}
	}
	return d
}

// describe returns a case that can be added to testdata/agreements.
func (g *proving) describe(t *testing.T, d draft, s shot) string {
	t.Helper()
	if err := g.install(t, d); err != nil {
		t.Fatal(err)
	}
	stack, host := g.read(t)
	ends, counts := g.differences(t, d, stack, host, []shot{s})
	rules := emptyTables.ReplaceAllString(d.tables, "")
	routing := strings.Join(strings.Split(ruleset.RuleSet{Family: d.family, Routing: d.routing}.String(), "\n"), "\n")
	return fmt.Sprintf("-- %s --\n%s%s%s-- packets --\n%s sport=%d midstream=%v -> %s\nthe walk: %s%s", d.family, rules, routing, d.native,
		s.Packet, s.SrcPort, s.Midstream, strings.Join(ends, ", "), stack.Trace(host, s.Packet, nil), counts)
}

// differences returns what differs: the ends of packets, one a line, and the counts of rules.
func (g *proving) differences(t *testing.T, d draft, stack *ruleset.Stack, host ruleset.Host, shots []shot) (ends []string, counts string) {
	t.Helper()
	g.prepareConnections(t, shots)
	if err := g.send(shots); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{}
	for i := range shots {
		path := stack.Trace(host, shots[i].Packet, nil)
		for _, name := range rulesMet(path) {
			want[name]++
		}
		if told := differs(host, shots[i], path.Outcome); told != "" {
			ends = append(ends, told)
		}
	}
	if d.counted && d.tables != "" {
		counts = g.compareCounts(t, want)
	}
	return ends, counts
}

var countedRule = regexp.MustCompile(`^\[(\d+):\d+\] -A (\S+)`)

func (g *proving) compareCounts(t *testing.T, want map[string]int) string {
	t.Helper()
	text := run(t, g.lab.Pod, g.tool()+"-save", "-c")
	var told []string
	set, err := ruleset.Parse(g.family, text)
	if err != nil {
		t.Fatal(err)
	}
	table, place := "", map[string]int{}
	for line := range strings.Lines(text) {
		if name, is := strings.CutPrefix(line, "*"); is {
			table, place = strings.TrimSpace(name), map[string]int{}
		}
		found := countedRule.FindStringSubmatch(line)
		if found == nil {
			continue
		}
		place[found[2]]++
		if rule := set.Chain(table, found[2]).Rules[place[found[2]]-1]; isOpaque(rule) {
			continue // who knows
		}
		got, _ := strconv.Atoi(found[1])
		if wanted := want[fmt.Sprintf("%s %s %d", table, found[2], place[found[2]])]; got != wanted {
			told = append(told, fmt.Sprintf("\n    counted %d, walked %d: %s %s", got, wanted, table, strings.TrimSpace(line)))
		}
	}
	return strings.Join(told, "")
}

func isOpaque(r ruleset.Rule) bool {
	return slices.ContainsFunc(r.Matches, func(m ruleset.Match) bool {
		_, opaque := m.(ruleset.OpaqueMatch)
		return opaque
	})
}

// differs returns how a packet's end in the kernel differs from the walked one; "" if it does not.
func differs(host ruleset.Host, s shot, want ruleset.Outcome) string {
	got := kernelsEnd(host, s, want)
	switch {
	case got == want,
		got.Fate == ruleset.Dropped && want.Fate == ruleset.Rejected,
		// A rule of ours rewrites it to no address.
		want.Fate == ruleset.Local && s.seen.to.Addr() == netip.IPv4Unspecified(),
		// The socket takes no such client.
		want.Fate == ruleset.Dropped && s.Protocol == "tcp" && (s.Src.Is4In6() || s.Src.IsUnspecified()) && !s.seen.left,
		// A destination that is rewritten to itself looks as if it were not.
		(got.Fate == ruleset.Direct || got.Fate == ruleset.Local) &&
			(want.Fate == ruleset.Redirected || want.Fate == ruleset.Rewritten) && want.Port == s.DstPort:
		return ""
	}
	return fmt.Sprintf("%s (%+v)", got, s.seen)
}

// kernelsEnd returns a packet's end in the kernel. That TPROXY took it counts only if the walk says so: a
// socket may also have taken it by its port.
func kernelsEnd(host ruleset.Host, s shot, want ruleset.Outcome) ruleset.Outcome {
	to := netip.AddrPortFrom(s.Dst, s.DstPort)
	local := s.Dst.IsLoopback() || slices.Contains(host.Addresses, s.Dst)
	switch seen := s.seen; {
	case !seen.there:
		return ruleset.Outcome{Fate: ruleset.Dropped}
	case !seen.left && seen.taken != 0 && want.Fate == ruleset.TProxied:
		return ruleset.Outcome{Fate: ruleset.TProxied, Port: seen.taken}
	case seen.to == to && !seen.left && !local:
		return ruleset.Outcome{Fate: ruleset.Local}
	case seen.to == to:
		return ruleset.Outcome{Fate: ruleset.Direct}
	case seen.left:
		return ruleset.Outcome{Fate: ruleset.Rewritten, Port: seen.to.Port()}
	}
	return ruleset.Outcome{Fate: ruleset.Redirected, Port: s.seen.to.Port()}
}

// prepareConnections forgets all connections, and makes those that packets belong to. Each such packet
// is an answer, so that conntrack takes it for established.
func (g *proving) prepareConnections(t *testing.T, shots []shot) {
	t.Helper()
	err := g.lab.Pod.Do(func() error {
		if err := netlink.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
			return err
		}
		for _, s := range shots {
			if s.State != ruleset.Established {
				continue
			}
			if err := establish(s.Packet); err != nil {
				return fmt.Errorf("making the connection of %s: %w", s.Packet, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func establish(p ruleset.Packet) error {
	family, protocol := netlink.InetFamily(unix.AF_INET), uint8(unix.IPPROTO_TCP)
	src := p.Src
	if p.Family == ruleset.IPv6 {
		family = unix.AF_INET6
		if !src.IsValid() {
			src = sourceInIPv6(p.Dst)
		}
	}
	if !src.IsValid() {
		src = sourceInIPv4(p.Dst)
	}
	if p.Protocol == "udp" {
		protocol = unix.IPPROTO_UDP
	}
	from, to := net.IP(src.AsSlice()), net.IP(p.Dst.AsSlice())
	flow := &netlink.ConntrackFlow{
		FamilyType: uint8(family), TimeOut: 300, Mark: p.ConnMark,
		Forward: netlink.IPTuple{SrcIP: to, DstIP: from, SrcPort: p.DstPort, DstPort: p.SrcPort, Protocol: protocol},
		Reverse: netlink.IPTuple{SrcIP: from, DstIP: to, SrcPort: p.SrcPort, DstPort: p.DstPort, Protocol: protocol},
	}
	if protocol == unix.IPPROTO_TCP {
		const established = 3 // TCP_CONNTRACK_ESTABLISHED
		flow.ProtoInfo = &netlink.ProtoInfoTCP{State: established}
	}
	return netlink.ConntrackCreate(netlink.ConntrackTable, family, flow)
}

func sourceInIPv4(to netip.Addr) netip.Addr {
	switch {
	case to.IsLoopback():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case to == netip.MustParseAddr("10.1.0.1"):
		return to
	}
	return Pod.Addresses[0]
}

// TestAgreementCases compares the walk with the kernel where the two once differed.
func TestAgreementCases(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy", "nft")
	t.Parallel()
	archive, err := txtar.ParseFile("testdata/agreements.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, backend := range iptablesBackends {
		for _, family := range ruleset.Families {
			t.Run(string(backend)+"/"+family.String(), func(t *testing.T) {
				t.Parallel()
				g := newProving(t, backend, family)
				for _, file := range archive.Files {
					if strings.HasPrefix(file.Name, family.String()) {
						g.checkCase(t, file.Name, string(file.Data))
					}
				}
			})
		}
	}
}

func (g *proving) checkCase(t *testing.T, name, text string) {
	t.Helper()
	at := strings.Index("\n"+text, "\nin ")
	if out := strings.Index("\n"+text, "\nout "); at < 0 || out >= 0 && out < at {
		at = out
	}
	packets, err := crossings(text[at:])
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	d := draft{family: g.family, tables: text[:at], counted: true}
	if strings.HasPrefix(d.tables, "table") {
		d.tables, d.native = "", d.tables
	}
	for _, table := range tableNames { // those of the case before are emptied
		if !strings.Contains(d.tables, "*"+table+"\n") {
			d.tables += "*" + table + "\n:" + strings.Join(hooksOf[table], " ACCEPT [0:0]\n:") + " ACCEPT [0:0]\nCOMMIT\n"
		}
	}
	for i, x := range packets {
		x.Packet.SrcPort = uint16(40000 + i)
		if err := g.install(t, d); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		stack, host := g.read(t)
		if got := stack.Trace(host, x.Packet, nil); got.Outcome != x.Want {
			t.Errorf("%s: %s, but walked:\n%s", name, x.Text, got)
		}
		if ends, counts := g.differences(t, d, stack, host, []shot{{Packet: x.Packet}}); len(ends) > 0 || counts != "" {
			t.Errorf("%s: %s, but the kernel: %q %s", name, x.Text, ends, counts)
		}
	}
}
