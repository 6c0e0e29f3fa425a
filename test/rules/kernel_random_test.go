//go:build linux

package rules

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/netns"
)

// Rule sets of TestKernelRandom, and packets through each: some hundred pairs, or with
// THOROUGH=true more than 10,000.
const (
	randomSets      = 12
	randomSetsLong  = 220
	randomPackets   = 50
	randomSeedFirst = 1
)

// TestKernelRandom sends random packets through random rule sets. nf_tables traces each packet: the
// rules that the kernel says accepted it are those that the walk names, in their order. Every second
// set is ours, with the flags of a case. Unlike TestAgreement, it sees the order in which each packet
// meets the rules, of connections that real sockets open; it does not see where packets end, other
// backends than iptables-nft, nor frames that no socket sends.
func TestKernelRandom(t *testing.T) {
	netns.Require(t, "iptables-nft", "nft", "ip")
	t.Parallel()
	sets := randomSets
	if os.Getenv("LONG") == "true" {
		sets = randomSetsLong
	}
	cases := slices.DeleteFunc(corpus(t), Case.Refused)
	var agreed, metInAll atomic.Int64
	t.Run("sets", func(t *testing.T) {
		for seed := randomSeedFirst; seed < randomSeedFirst+sets; seed++ {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				g := random{rand.New(rand.NewPCG(uint64(seed), 17))}
				sets := map[ruleset.Family]ruleset.RuleSet{}
				for _, family := range ruleset.Families {
					text := g.rules(family)
					if seed%2 == 0 {
						text, _ = cases[g.IntN(len(cases))].Section(sectionOf[family])
					}
					set, err := ruleset.Parse(family, text)
					if err != nil {
						t.Fatal(err)
					}
					sets[family] = set
				}
				met := followRandom(t, g, sets)
				if !t.Failed() {
					agreed.Add(randomPackets)
					metInAll.Add(int64(met))
				}
			})
		}
	})
	t.Logf("%d packets went the way that the walk says, by %d rules", agreed.Load(), metInAll.Load())
}

// followRandom compares walks with traces; it returns the number of rules that packets met.
func followRandom(t *testing.T, g random, sets map[ruleset.Family]ruleset.RuleSet) (met int) {
	t.Helper()
	lab := newLab(t)
	restore(t, lab.Pod, sets)
	for _, wildcard := range netns.Wildcards {
		o := netns.ListenOptions{Transparent: true} // without one, TPROXY drops
		listener, err := lab.Pod.ListenTCP(netip.AddrPortFrom(wildcard, 15006), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = listener.Close() })
	}
	watch := newTracer(t, lab.Pod)
	for range randomPackets {
		family := ruleset.Families[g.IntN(2)]
		packet := g.packet(family)
		set := sets[family]
		host := Pod
		for _, own := range set.Routing.Addresses {
			host.Addresses = append(slices.Clone(host.Addresses), own.Addr())
		}
		walked := ruleset.NewStack(set.Routing, set).Follow(host, packet, nil)
		want := rulesMet(walked)
		// A trace may come late on a busy machine: what differs is sent once more, and waited for.
		var got []string
		for _, patience := range []time.Duration{0, 50 * time.Millisecond, time.Second} {
			if got = watch.send(t, lab, packet, patience); slices.Equal(got, want) {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s\nwalk:   %q, %s\nkernel: %q\n%s", packet, want, walked.Outcome, got, set)
			return met
		}
		met += len(want)
	}
	return met
}

// rulesMet returns the rules that a walk names, by table, chain and number.
func rulesMet(path ruleset.Path) (names []string) {
	for _, step := range path.Steps {
		if step.Number > 0 {
			names = append(names, fmt.Sprintf("%s %s %d", step.Table, step.Chain, step.Number))
		}
	}
	return names
}

// random draws rules and packets from values that meet each other's edges.
type random struct{ *rand.Rand }

func (g random) not() string { return one(g, "", "", "! ") }

func (g random) prefix(family ruleset.Family) string {
	if family == ruleset.IPv6 {
		return one(g, "fd00::/8", "fd00::1/128", "fd00:1::/32", "::1/128", "2001:db8::/32", "::/1")
	}
	return one(g, "10.0.0.0/8", "10.0.0.1/32", "10.1.0.0/16", "127.0.0.1/32", "127.0.0.6/32", "192.0.2.0/24", "127.0.0.0/8", "0.0.0.0/1")
}

func (g random) match(family ruleset.Family, chain string) string {
	marks := []string{"0x539", "0x53a", "0x1/0x1", "0x10/0xf0", "0x111/0xfff", "0x0"}
	options := []string{
		g.not() + "-s " + g.prefix(family), g.not() + "-d " + g.prefix(family), g.not() + "-p " + one(g, "tcp", "udp"),
		"-p tcp -m tcp " + g.not() + "--dport " + one(g, "80", "1:1023", "15006", "53", "443:8080"),
		"-p udp -m udp " + g.not() + "--dport " + one(g, "53", "1:1023", "15053"),
		"-p tcp -m multiport " + g.not() + "--dports " + one(g, "22,80,443", "15000:15100,9090"),
		"-p tcp -m tcp " + g.not() + "--tcp-flags FIN,SYN,RST,ACK SYN",
		"-m mark " + g.not() + "--mark " + one(g, marks...), "-m connmark " + g.not() + "--mark " + one(g, marks...),
		"-m addrtype " + g.not() + one(g, "--src-type", "--dst-type") + " LOCAL",
		"-m conntrack " + g.not() + "--ctstate " + one(g, "NEW", "INVALID", "RELATED,ESTABLISHED", "NEW,UNTRACKED"),
	}
	switch chain {
	case "PREROUTING", "INPUT":
		options = append(options, g.not()+"-i "+one(g, "lo", "eth0", "eth+"))
	case "OUTPUT", "POSTROUTING":
		options = append(options, g.not()+"-o "+one(g, "lo", "eth0", "eth+"),
			"-m owner "+g.not()+one(g, "--uid-owner", "--gid-owner")+" "+one(g, "0", "1337", "1000-2000"))
	}
	return one(g, options...)
}

// target is one that a rule of the chain may have. Chains of our own have those that every hook of
// the table allows.
func (g random) target(family ruleset.Family, table, chain string) string {
	targets := []string{"ACCEPT", "RETURN"}
	own := chain == "ONE" || chain == "TWO"
	if !own {
		targets = append(targets, "ONE", "TWO", "ONE", "TWO")
	}
	switch table {
	case "raw":
		targets = append(targets, "CT --notrack", "DROP")
	case "mangle":
		targets = append(targets, "MARK --set-xmark 0x539/0xffffffff", "MARK --set-xmark 0x1/0x1", "MARK --set-xmark 0x10/0x0",
			"CONNMARK --set-xmark 0x111/0xfff", "CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
			"CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff", "DROP")
		if chain == "PREROUTING" {
			targets = append(targets, "TPROXY --on-port 15006 --on-ip "+anyOf[family]+" --tproxy-mark 0x1/0x1")
		}
	case "nat":
		if chain == "PREROUTING" || chain == "OUTPUT" {
			targets = append(targets, "REDIRECT --to-ports 15001", "REDIRECT --to-ports 15006")
		}
	case "filter":
		targets = append(targets, "DROP", "REJECT")
	}
	return one(g, targets...)
}

// rules is a rule set: built-in chains, and two chains that they jump to.
func (g random) rules(family ruleset.Family) string {
	var b strings.Builder
	for _, table := range tableNames {
		if g.IntN(4) == 0 {
			continue
		}
		hooks := map[string][]string{
			"raw": {"PREROUTING", "OUTPUT"}, "mangle": {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"},
			"nat": {"PREROUTING", "OUTPUT", "POSTROUTING"}, "filter": {"INPUT", "OUTPUT"},
		}[table]
		fmt.Fprintf(&b, "*%s\n:ONE - [0:0]\n:TWO - [0:0]\n", table)
		for _, chain := range append(hooks, "ONE", "TWO") {
			for range g.IntN(5) {
				var matches []string
				target := g.target(family, table, chain)
				if strings.HasPrefix(target, "TPROXY") || strings.HasPrefix(target, "REDIRECT") {
					matches = append(matches, "-p tcp")
				}
				for range g.IntN(3) {
					matches = uniqueMatches(append(matches, g.match(family, chain)))
				}
				fmt.Fprintf(&b, "-A %s %s -j %s\n", chain, strings.Join(matches, " "), target)
			}
		}
		b.WriteString("COMMIT\n")
	}
	fmt.Fprintf(&b, "# ip -%d route add local default dev lo table 133\n", family)
	if g.IntN(2) == 0 {
		fmt.Fprintf(&b, "# ip -%d rule add fwmark %s lookup 133\n", family, one(g, "0x539/0xffffffff", "0x1/0x1", "0x111/0xfff"))
	}
	return b.String()
}

// packet opens a connection of a process of the pod, or of another host.
func (g random) packet(family ruleset.Family) ruleset.Packet {
	out := []string{"10.0.0.1", "10.0.0.9", "10.1.0.5", "127.0.0.1", "127.0.0.7", "192.0.2.1"}
	from := []string{"10.0.0.9", "10.1.0.5", "192.0.2.7"}
	own, hop := "10.0.0.1", "127.0.0.6"
	if family == ruleset.IPv6 {
		out = []string{"fd00::1", "fd00::9", "fd00:1::5", "::1", "2001:db8::1"}
		from = []string{"fd00::9", "fd00:1::5", "2001:db8::7"}
		own, hop = "fd00::1", "fd00::1"
	}
	ids := []uint32{0, 999, 1000, 1337, 2000, 2001}
	packet := ruleset.Packet{
		Direction: ruleset.In, Family: family, Protocol: one(g, "tcp", "tcp", "udp"), State: ruleset.New,
		Dst: netip.MustParseAddr(own), DstPort: []uint16{22, 53, 80, 443, 8080, 15006, 15021}[g.IntN(7)], SrcPort: 40000,
	}
	if g.IntN(2) == 0 {
		packet.Src, packet.Interface = netip.MustParseAddr(one(g, from...)), Pod.Uplink
		return packet
	}
	packet.Direction, packet.Dst = ruleset.Out, netip.MustParseAddr(one(g, out...))
	packet.UID, packet.GID = ids[g.IntN(len(ids))], ids[g.IntN(len(ids))]
	packet.Src = packet.Dst
	if !packet.Dst.IsLoopback() && packet.Dst.String() != own {
		packet.Src = netip.MustParseAddr(own)
	}
	if packet.Dst.String() == own {
		packet.Src = netip.MustParseAddr(one(g, own, hop, from[0]))
	}
	packet.Mark = []uint32{0, 0, 0, 1, 0x10, 0x111, 0x539, 0x53a}[g.IntN(8)]
	return packet
}

// tracer reads which rules of nf_tables a packet has met.
type tracer struct {
	socket int
	rules  map[string]string // by family, table, chain and handle: table, chain and number
}

// Its own table marks the packets that are traced, before all other rules: the first of a tcp
// connection, and all of udp. Its last rule has the kernel track connections, as every REDIRECT does:
// a namespace in which no rule needs that asks no chain of nat at all.
const tracerTable = `table inet tracer {
	chain pre { type filter hook prerouting priority -450; jump first; }
	chain out { type filter hook output priority -450; jump first; }
	chain first {
		tcp flags & (fin | syn | rst | ack) == syn meta nftrace set 1
		meta l4proto udp meta nftrace set 1
		ct state established continue
	}
}
`

// groupOfTraces is NFNLGRP_NFTRACE of linux/netfilter/nfnetlink.h.
const groupOfTraces = 9

// sendTime is how long a connection is waited for: no longer than the kernel takes to send its first
// packet again.
const sendTime = 20 * time.Millisecond

// markPort is where the packet goes that shows that all before it have been traced. No rule and no
// other packet names it.
const markPort = 9

func newTracer(t *testing.T, pod *netns.NS) *tracer {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tracer")
	if err := os.WriteFile(file, []byte(tracerTable), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, pod, "nft", "-f", file)
	watch := &tracer{rules: map[string]string{}}
	err := pod.Do(func() (err error) {
		watch.socket, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		return errors.Join(unix.Bind(watch.socket, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
			unix.SetsockoptInt(watch.socket, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, groupOfTraces),
			unix.SetsockoptInt(watch.socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(watch.socket) })
	watch.readRules(t, run(t, pod, "nft", "-a", "list", "ruleset"))
	return watch
}

// readRules learns the handles of all rules.
func (w *tracer) readRules(t *testing.T, listing string) {
	t.Helper()
	var table, chain string
	number := 0
	scanner := bufio.NewScanner(strings.NewReader(listing))
	for scanner.Scan() {
		words := strings.Fields(scanner.Text())
		i := slices.Index(words, "handle")
		switch {
		case i < 0 || len(words) <= i+1:
		case words[0] == "table":
			table = words[1] + " " + words[2]
		case words[0] == "chain":
			chain, number = words[1], 0
		default:
			number++
			_, name, _ := strings.Cut(table, " ")
			w.rules[fmt.Sprintf("%s %s %s", table, chain, words[i+1])] = fmt.Sprintf("%s %s %d", name, chain, number)
		}
	}
}

// send sends a packet and returns the rules that accepted it.
func (w *tracer) send(t *testing.T, lab *netns.Lab, packet ruleset.Packet, patience time.Duration) []string {
	t.Helper()
	ns := lab.Pod
	options := netns.DialOptions{Source: packet.Src, Mark: packet.Mark, Timeout: sendTime}
	last := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), markPort)
	if packet.Direction == ruleset.In {
		ns, last = lab.Outside, netip.AddrPortFrom(netns.PodIPv4, markPort)
	} else {
		options.Identity = netns.Identity{UID: packet.UID, GID: packet.GID}
	}
	w.drain()
	to := netip.AddrPortFrom(packet.Dst, packet.DstPort)
	conn, err := ns.Dial(t.Context(), packet.Protocol, to, options)
	if err == nil {
		if packet.Protocol == "udp" {
			_, _ = conn.Write([]byte("x")) // a rule that drops it fails the call
		}
		_ = conn.Close()
	}
	if marker, err := ns.Dial(t.Context(), "udp", last, netns.DialOptions{}); err == nil {
		_, _ = marker.Write([]byte("x"))
		_ = marker.Close()
	}
	time.Sleep(patience)
	return w.read(t)
}

// drain throws away what is left of the packets before.
func (w *tracer) drain() {
	buffer := make([]byte, 1<<16)
	for {
		if _, _, err := unix.Recvfrom(w.socket, buffer, unix.MSG_DONTWAIT); err != nil {
			return
		}
	}
}

// Attributes of a trace, of linux/netfilter/nf_tables.h.
const (
	traceTable     = 1
	traceChain     = 2
	traceHandle    = 3
	traceType      = 4
	traceID        = 6
	traceTransport = 9
	traceProtocol  = 15

	traceTypeRule = 3
)

// read returns the rules that accepted a packet, up to the packet that marks the end.
func (w *tracer) read(t *testing.T) []string {
	t.Helper()
	var met []string
	ours := map[uint32]bool{} // by the packet's number, which each hook gives anew
	buffer := make([]byte, 1<<16)
	for {
		if err := unix.SetsockoptTimeval(w.socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200000}); err != nil {
			t.Fatal(err)
		}
		n, _, err := unix.Recvfrom(w.socket, buffer, 0)
		if err != nil {
			return met // the end mark was lost, or the packet was never sent
		}
		messages, err := nlMessages(buffer[:n])
		if err != nil {
			t.Fatal(err)
		}
		for _, attributes := range messages {
			id := binary.BigEndian.Uint32(attributes[traceID])
			if header := attributes[traceTransport]; len(header) >= 4 {
				port := binary.BigEndian.Uint16(header[2:])
				if port == markPort {
					return met
				}
				ours[id] = port != 0
			}
			if !ours[id] || binary.BigEndian.Uint32(attributes[traceType]) != traceTypeRule || len(attributes[traceHandle]) != 8 {
				continue
			}
			protocol := binary.BigEndian.Uint32(attributes[traceProtocol])
			family := map[uint32]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6"}[protocol]
			table, chain := cString(attributes[traceTable]), cString(attributes[traceChain])
			if table == "tracer" {
				continue
			}
			key := fmt.Sprintf("%s %s %s %d", family, table, chain, binary.BigEndian.Uint64(attributes[traceHandle]))
			if w.rules[key] == "" {
				t.Fatalf("a trace of a rule that nobody listed: %q", key)
			}
			met = append(met, w.rules[key])
		}
	}
}

// nlMessages returns the attributes of each message of a subsystem of netfilter.
func nlMessages(data []byte) (all []map[uint16][]byte, err error) {
	for len(data) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(data))
		if size < unix.SizeofNlMsghdr+nl.SizeofNfgenmsg || size > len(data) {
			return nil, fmt.Errorf("a message of %d bytes", size)
		}
		parsed, err := nl.ParseRouteAttr(data[unix.SizeofNlMsghdr+nl.SizeofNfgenmsg : size])
		if err != nil {
			return nil, err
		}
		attributes := map[uint16][]byte{}
		for _, a := range parsed {
			attributes[a.Attr.Type&^unix.NLA_F_NESTED&^unix.NLA_F_NET_BYTEORDER] = slices.Clone(a.Value)
		}
		all = append(all, attributes)
		data = data[min(len(data), (size+3)&^3):]
	}
	return all, nil
}

func cString(data []byte) string { return strings.TrimRight(string(data), "\x00") }
