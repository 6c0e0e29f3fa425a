//go:build linux

package rules

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// chance makes random rules and packets of one family: the matches and targets that dumps of real
// pods have, those of Istio, Linkerd, kube-proxy, Docker and others, with values that meet each other.
type chance struct {
	*rand.Rand
	family ruleset.Family
	// Values that the rules so far have named, for packets that meet them.
	ports    []uint16
	prefixes []netip.Prefix
	ids      []uint32
	marks    []uint32
	zones    bool // a rule sets a zone of conntrack
}

// one draws one of some values.
func one[T any](c interface{ IntN(n int) int }, from ...T) T { return from[c.IntN(len(from))] }

// in reports true so many times out of a hundred.
func (c *chance) in100(times int) bool { return c.IntN(100) < times }

func (c *chance) port() string {
	port := one(c, 22, 53, 80, 443, 8080, 9090, 15001, 15006, 15008, 15020, 15053, 15090, 1+c.IntN(65535))
	c.ports = append(c.ports, uint16(port))
	return strconv.Itoa(port)
}

func (c *chance) portRange() string {
	first := c.IntN(65000)
	last := first + 1 + c.IntN(534)
	c.ports = append(c.ports, uint16(first), uint16(last))
	return fmt.Sprintf("%d:%d", first, last)
}

var prefixPool = map[ruleset.Family][]string{
	ruleset.IPv4: {
		"0.0.0.0/0", "10.0.0.1/32", "10.0.0.9/32", "10.0.0.0/24", "10.0.0.0/8", "10.1.0.1/32", "10.78.0.0/16", "127.0.0.1/32",
		"127.0.0.6/32", "127.0.0.0/8", "198.51.100.0/24", "169.254.169.254/32", "10.96.0.10/32", "127.0.0.11/32", "172.16.0.0/12",
	},
	ruleset.IPv6: {
		"::/0", "fd00::1/128", "fd00::9/128", "fd00::/64", "fd00::/8", "fd00:1::1/128", "fd00:78::/32", "::1/128", "::6/128",
		"2001:db8::/32", "fd00:96::a/128", "2000::/3",
	},
}

func (c *chance) prefix() string {
	text := one(c, prefixPool[c.family]...)
	c.prefixes = append(c.prefixes, netip.MustParsePrefix(text))
	return text
}

func (c *chance) id() string {
	id := one[uint32](c, 0, 1000, 1337, 1338, 2000)
	c.ids = append(c.ids, id)
	return strconv.FormatUint(uint64(id), 10)
}

// mark returns a mark, in half of all cases with a mask.
func (c *chance) mark() string {
	mark := one[uint32](c, 1, 0x539, 0x111, 0x4000, 0x8000, 0x40)
	c.marks = append(c.marks, mark)
	if c.in100(50) {
		return fmt.Sprintf("%#x/%#x", mark, one[uint32](c, mark, 0xfff|mark, 0xffff|mark, 0xffffffff))
	}
	return fmt.Sprintf("%#x", mark)
}

func (c *chance) not(times int) string {
	if c.in100(times) {
		return "! "
	}
	return ""
}

// negated returns an option, sometimes negated. nf_tables takes no rule that nothing meets.
func (c *chance) negated(option, prefix string) string {
	if strings.HasSuffix(prefix, "/0") {
		return option + " " + prefix
	}
	return c.not(25) + option + " " + prefix
}

// hooksOf are the built-in chains of each table.
var hooksOf = map[string][]string{
	"raw":    {"PREROUTING", "OUTPUT"},
	"mangle": {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"},
	"nat":    {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"},
	"filter": {"INPUT", "FORWARD", "OUTPUT"},
}

var tableNames = []string{"raw", "mangle", "nat", "filter"}

// iptablesRules returns random rules of others in iptables' tables, as iptables-restore reads them.
func (c *chance) iptablesRules(tables []string, most int) string {
	var text strings.Builder
	for _, table := range tables {
		var declared, rules strings.Builder
		for _, hook := range hooksOf[table] {
			policy := "ACCEPT"
			if table != "nat" && c.in100(2) {
				policy = "DROP"
			}
			fmt.Fprintf(&declared, ":%s %s [0:0]\n", hook, policy)
			c.iptablesChain(&declared, &rules, table, hook, hook, most, 0)
		}
		fmt.Fprintf(&text, "*%s\n%s%sCOMMIT\n", table, &declared, &rules)
	}
	return text.String()
}

func (c *chance) iptablesChain(declared, rules *strings.Builder, table, hook, chain string, most, depth int) {
	for i := range c.IntN(most + 1) {
		matches := c.iptablesMatches(table, hook)
		if depth < 2 && c.in100(20) {
			next := fmt.Sprintf("%s-%d", chain, i)
			fmt.Fprintf(declared, ":%s - [0:0]\n", next)
			c.iptablesChain(declared, rules, table, hook, next, 3, depth+1)
			fmt.Fprintf(rules, "-A %s %s %s %s\n", chain, matches, one(c, "-j", "-j", "-g"), next)
			continue
		}
		protocol, target := c.iptablesTarget(table, hook)
		oneProtocol := !strings.Contains(matches, "! -p") && (strings.Contains(matches, "-p tcp") || strings.Contains(matches, "-p udp"))
		if protocol != "" && !oneProtocol {
			matches = protocol
		}
		if table != "nat" && strings.Contains(target, "DROP") && matches == "" {
			target = "-j ACCEPT"
		}
		fmt.Fprintf(rules, "-A %s %s %s\n", chain, matches, target)
	}
}

// iptablesMatches returns conditions of a rule, a few or none.
func (c *chance) iptablesMatches(table, hook string) string {
	all := c.iptablesWay(hook)
	protocol := ""
	if c.in100(65) {
		protocol = one(c, "tcp", "tcp", "tcp", "udp")
		all.add("-p %s", protocol)
	} else if c.in100(10) {
		all.add("! -p %s", one(c, "tcp", "udp"))
	}
	if protocol != "" && c.in100(60) {
		all = append(all, c.iptablesPorts(protocol))
	}
	for range 2 {
		if c.in100(35) {
			c.addIPTablesState(&all, hook, protocol)
		}
	}
	if c.in100(2) {
		rare := one(c,
			"-m statistic --mode random --probability 0.50000000000", "-m limit --limit 1/sec", "-m length --length 0:500",
			"-m socket --transparent", "-m addrtype --dst-type UNICAST", "-m owner --socket-exists",
			"-m recent --rcheck --seconds 180 --name theirs", "-m string --string never --algo bm", "-m conntrack --ctdir ORIGINAL",
			"-m pkttype --pkt-type unicast")
		switch { // these two are for some hooks only
		case strings.HasPrefix(rare, "-m owner") && !ofProcesses(hook):
		case strings.HasPrefix(rare, "-m socket") && (hook != "PREROUTING" || table == "nat"):
		default:
			all = append(all, rare)
		}
	}
	return strings.Join(uniqueMatches(all), " ")
}

// ofProcesses reports whether a hook's packets may have an owner, and have no interface that they came by.
func ofProcesses(hook string) bool { return hook == "OUTPUT" || hook == "POSTROUTING" }

// iptablesWay returns conditions of where a packet comes from and goes to.
func (c *chance) iptablesWay(hook string) (all conditions) {
	if c.in100(25) {
		all.add("%s", c.negated("-s", c.prefix()))
	}
	if c.in100(30) {
		all.add("%s", c.negated("-d", c.prefix()))
	}
	device := func() string { return one(c, "eth0", "eth1", "lo", "lo", "eth+", "tun0") }
	if !ofProcesses(hook) && c.in100(25) {
		all.add("%s-i %s", c.not(25), device())
	}
	if (ofProcesses(hook) || hook == "FORWARD") && c.in100(30) {
		all.add("%s-o %s", c.not(25), device())
	}
	return all
}

// iptablesPorts returns a condition of a packet's ports.
func (c *chance) iptablesPorts(protocol string) string {
	switch c.IntN(6) {
	case 0, 1, 2:
		return fmt.Sprintf("-m %s %s--dport %s", protocol, c.not(20), c.port())
	case 3:
		return fmt.Sprintf("-m %s %s--dport %s", protocol, c.not(20), c.portRange())
	case 4:
		return fmt.Sprintf("-m multiport %s--%s %s,%s,%s", c.not(20), one(c, "dports", "dports", "dports", "sports", "sports"),
			c.port(), c.portRange(), c.port())
	}
	return fmt.Sprintf("-m %s %s--sport %s", protocol, c.not(20), one(c, c.port(), "1024:65535", "30000:40000"))
}

// addIPTablesState adds a condition of what the kernel knows of a packet, if the one drawn fits the rule.
func (c *chance) addIPTablesState(all *conditions, hook, protocol string) {
	switch c.IntN(9) {
	case 0, 1:
		if ofProcesses(hook) {
			all.add("-m owner %s--%s %s", c.not(30), one(c, "uid-owner", "gid-owner"), one(c, c.id(), c.id(), "1000-1999"))
		}
	case 2:
		all.add("-m mark %s--mark %s", c.not(30), c.mark())
	case 3:
		all.add("-m connmark %s--mark %s", c.not(30), c.mark())
	case 4, 5:
		states := one(c, "RELATED,ESTABLISHED", "NEW", "INVALID", "INVALID,NEW", "NEW,UNTRACKED", "ESTABLISHED", "UNTRACKED",
			"NEW,RELATED")
		all.add("-m conntrack %s--ctstate %s", c.not(20), states)
	case 6, 7:
		all.add("-m addrtype %s--%s-type LOCAL", c.not(30), one(c, "dst", "dst", "src"))
	case 8:
		if protocol == "tcp" {
			const opening = "FIN,SYN,RST,ACK SYN"
			all.add("-m tcp %s--tcp-flags %s", c.not(30), one(c, opening, opening, opening, "SYN,RST SYN"))
		}
	}
}

// uniqueMatches keeps the first condition of each kind: iptables takes -p, or another option, once.
func uniqueMatches(words []string) []string {
	var kept []string
	seen := map[string]bool{}
	for _, w := range words {
		kind := kindOfMatch(w)
		if !seen[kind] {
			seen[kind], kept = true, append(kept, w)
		}
	}
	return kept
}

// kindOfMatch is what a match is about: two of one kind are not taken together.
func kindOfMatch(match string) string {
	words := strings.Fields(strings.ReplaceAll(match, "! ", ""))
	if words[0] == "-m" {
		return words[1]
	}
	return words[0]
}

// iptablesTarget returns a target, and the protocol that it needs.
func (c *chance) iptablesTarget(table, hook string) (protocol, target string) {
	if c.in100(22) {
		return "", one(c, "-j ACCEPT", "-j RETURN", "-j RETURN", "", "-j NFLOG --nflog-group 99")
	}
	withPorts := one(c, "-p tcp", "-p udp", "-p tcp")
	switch table {
	case "raw":
		zone := c.IntN(4) == 0
		c.zones = c.zones || zone
		if zone {
			return "", "-j CT --zone " + one(c, "1", "2")
		}
		return "", one(c, "-j CT --notrack", "-j CT --notrack", "-j MARK --set-xmark "+c.mark(), "-j DROP")
	case "mangle":
		if hook == "PREROUTING" && c.in100(35) {
			return withPorts, fmt.Sprintf("-j TPROXY --on-port %d --on-ip %s --tproxy-mark %s",
				one(c, transparentPorts...), one(c, anyOf[c.family], anyOf[c.family], loopbackOf[c.family]), c.mark())
		}
		return "", one(c, "-j DROP", "-j MARK --set-xmark "+c.mark(), "-j MARK --set-xmark "+c.mark(),
			"-j MARK --or-mark 0x4000", "-j MARK --and-mark 0xff", "-j CONNMARK --set-xmark "+c.mark(),
			"-j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
			"-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff",
			"-j CONNMARK --restore-mark --nfmask 0xff00 --ctmask 0xfff",
			"-j CONNMARK --save-mark --nfmask 0xfff --ctmask 0xffff", "-j DSCP --set-dscp 0x0a", "-j TOS --set-tos 0x10/0x3f")
	case "nat":
		switch hook {
		case "PREROUTING", "OUTPUT":
			return withPorts, one(c, fmt.Sprintf("-j REDIRECT --to-ports %s", c.port()), fmt.Sprintf("-j REDIRECT --to-ports %s", c.port()),
				"-j REDIRECT", "-j DNAT --to-destination "+c.to(true), "-j DNAT --to-destination "+c.to(false),
				"-j MARK --set-xmark "+c.mark())
		case "POSTROUTING":
			return "", one(c, "-j MASQUERADE", "-j MASQUERADE", "-j MARK --set-xmark "+c.mark())
		}
		return "", "-j MARK --set-xmark " + c.mark()
	}
	return "", one(c, "-j DROP", "-j REJECT", "-j MARK --set-xmark "+c.mark(), "-j CONNMARK --set-xmark "+c.mark())
}

var (
	anyOf      = map[ruleset.Family]string{ruleset.IPv4: "0.0.0.0", ruleset.IPv6: "::"}
	loopbackOf = map[ruleset.Family]string{ruleset.IPv4: "127.0.0.1", ruleset.IPv6: "::1"}
	servers    = map[ruleset.Family][]string{
		ruleset.IPv4: {"10.0.0.9", "10.78.0.5", "10.0.0.1", "10.1.0.1", "127.0.0.1"},
		ruleset.IPv6: {"fd00::9", "fd00:78::5", "fd00::1", "fd00:1::1"},
	}
)

// to returns a destination for DNAT.
func (c *chance) to(port bool) string {
	addr := one(c, servers[c.family]...)
	switch {
	case !port:
		return addr
	case c.family == ruleset.IPv6:
		return "[" + addr + "]:" + c.port()
	}
	return addr + ":" + c.port()
}

// shortFlags are Istio's long names of the flags that are written by their letters here.
var shortFlags = map[string]string{
	"-b": "--istio-inbound-ports", "-d": "--istio-local-exclude-ports", "-i": "--istio-service-cidr", "-x": "--istio-service-exclude-cidr",
	"-q": "--istio-outbound-ports", "-o": "--istio-local-outbound-ports-exclude", "-k": "--kube-virt-interfaces",
	"-c": "--istio-exclude-interfaces", "-u": "--proxy-uid", "-g": "--proxy-gid", "-e": "--inbound-tunnel-port",
	"-t": "--istio-inbound-tproxy-mark",
}

// arguments returns random flags of shunt-init.
func (c *chance) arguments() []string {
	args := []string{"--system=" + one(c, "redirect", "redirect", "tproxy", "tproxy", "ambient", "legacy")}
	ports := func() string { return one(c, "80", "8080,9090", "8000-8100,443", "15000-15100", "1-65535", "22") }
	maybe := func(times int, flag string, values ...string) {
		if c.in100(times) {
			if !strings.HasPrefix(flag, "--") {
				flag = shortFlags[flag]
			}
			args = append(args, flag+"="+one(c, values...))
		}
	}
	cidrs := []string{"10.0.0.0/8,fd00::/8", "10.78.0.0/16", "0.0.0.0/0,::/0", "198.51.100.0/24,2001:db8::/32", "10.96.0.10/32",
		"fd00:78::/32"}
	maybe(25, "-b", ports(), "*")
	maybe(30, "-d", ports())
	maybe(30, "-i", append(cidrs, "*")...)
	maybe(30, "-x", cidrs...)
	maybe(20, "-q", ports())
	maybe(30, "-o", ports())
	maybe(15, "-k", "eth1", "eth1,tun0")
	if !strings.Contains(args[len(args)-1], shortFlags["-k"]) { // an interface is of one kind
		maybe(15, "-c", "eth1", "eth+", "tun0")
	}
	maybe(15, "-u", "1337,1338", "2000", "0")
	maybe(15, "-g", "1337", "2000,1338")
	maybe(10, "-e", "15008", "9090")
	maybe(10, "-t", "0x111", "7")
	maybe(15, one(c, "--outbound-owner-groups", "--outbound-owner-groups-exclude"), "1000", "1000,2000")
	maybe(10, "--drop-invalid", "true")
	if args[0] == "--system=tproxy" {
		maybe(25, "--capture-udp-ports", "443", "53,8000-9000")
		maybe(15, "--reject-udp-ports", "8443", "80")
	}
	if args[0] != "--system=legacy" && c.in100(35) {
		args = append(args, "--redirect-dns", one(c, "--capture-all-dns", "--dns-servers=10.96.0.10,fd00:96::a"))
	}
	return args
}

// packetsFor returns packets that the rules may meet.
func (c *chance) packetsFor(count int) []shot {
	shots := make([]shot, 0, count)
	sports := map[uint16]bool{} // one connection each, so that the kernel chooses no other port
	for len(shots) < count {
		p := c.packet()
		if sports[p.SrcPort] {
			continue
		}
		sports[p.SrcPort] = true
		shots = append(shots, shot{Packet: p})
	}
	return shots
}

var addressPool = map[ruleset.Family]map[string][]string{
	ruleset.IPv4: {
		"own": {"10.0.0.1", "10.0.0.1", "10.0.0.1", "10.1.0.1"}, "loopback": {"127.0.0.1", "127.0.0.1", "127.0.0.6", "127.0.0.11"},
		"other": {"10.0.0.9", "10.0.0.9", "198.51.100.7", "10.78.0.5", "10.96.0.10", "169.254.169.254", "172.17.0.2", "8.8.8.8"},
		"odd":   {"0.0.0.0", "10.0.0.1", "10.1.0.1", "127.0.0.1", "127.0.0.6"},
	},
	ruleset.IPv6: {
		"own": {"fd00::1", "fd00::1", "fd00::1", "fd00:1::1"}, "loopback": {"::1", "::1", "::1", "::6"},
		"other": {"fd00::9", "fd00::9", "2001:db8::7", "fd00:78::5", "fd00:96::a", "2a00::1"},
		"odd":   {"::1", "::", "fd00::1", "fd00:1::1", "::6", "::ffff:127.0.0.1", "::ffff:10.0.0.9"},
	},
}

func (c *chance) address(kind string) netip.Addr {
	if kind == "other" && len(c.prefixes) > 0 && c.in100(40) {
		p := one(c, c.prefixes...)
		addr := one(c, p.Addr(), p.Addr().Next())
		if !ruleset.ThisHost(addr) && addr != netip.IPv4Unspecified() && addr.IsGlobalUnicast() && addr.IsValid() {
			return addr
		}
	}
	return netip.MustParseAddr(one(c, addressPool[c.family][kind]...))
}

// packet returns a packet from outside, of a process, or of the proxy's hop to the app.
func (c *chance) packet() ruleset.Packet {
	p := ruleset.Packet{
		Family: c.family, Protocol: one(c, "tcp", "tcp", "tcp", "udp"), State: ruleset.New,
		SrcPort: uint16(20000 + c.IntN(40000)), DstPort: one[uint16](c, 80, 8080, 53, 22, 9090, 15001, 15006, 15008, 15020, 15053, 443),
	}
	if len(c.ports) > 0 && c.in100(50) {
		p.DstPort = one(c, c.ports...) + one[uint16](c, 0, 0, 0, 1, 65535)
	}
	if len(c.ports) > 0 && c.in100(10) {
		p.SrcPort = one(c, c.ports...)
	}
	if p.DstPort == 0 || p.SrcPort == 0 {
		p.DstPort, p.SrcPort = 8080, 40000
	}
	if c.in100(50) {
		c.outside(&p)
	} else {
		c.sender(&p)
	}
	c.connection(&p)
	return p
}

// outside makes a packet one of another host.
func (c *chance) outside(p *ruleset.Packet) {
	p.Direction, p.Interface, p.Src = ruleset.In, one(c, "eth0", "eth0", "eth1"), c.address("other")
	p.Dst = c.address(one(c, "own", "own", "own", "own", "own", "other", "loopback"))
	if c.in100(12) {
		p.Src = c.address("odd")
	}
	if odd := c.address("odd"); c.in100(4) && !odd.Is4In6() && odd != netip.IPv6Unspecified() { // which a router forwards
		p.Dst = odd
	}
}

// connection makes some packets ones of connections that conntrack knows, has not seen begin, or refuses.
func (c *chance) connection(p *ruleset.Packet) {
	switch {
	case c.in100(10) && p.Protocol == "tcp":
		p.Midstream = true
	case c.in100(12) && !c.zones:
		p.State = ruleset.Established
		if !p.Src.IsValid() { // both ends of a connection are known
			p.Src = c.address("own")
		}
		if c.in100(50) {
			p.ConnMark = one(c, append(c.marks, 0x539, 0x111)...)
		}
	case c.in100(6) && (p.Protocol == "tcp" || p.Direction == ruleset.In):
		p.State = ruleset.Invalid
	}
}

// sender makes a packet one of a process of the pod.
func (c *chance) sender(p *ruleset.Packet) {
	p.Direction = ruleset.Out
	p.UID, p.GID = one[uint32](c, append(c.ids, 1000, 1000, 0, 1337)...), one[uint32](c, append(c.ids, 1000, 1000, 0, 1337)...)
	p.Dst = c.address(one(c, "other", "other", "own", "loopback"))
	if c.in100(20) {
		p.Mark = one(c, append(slices.Clone(c.marks), 0x539, 0x111)...)
	}
	switch c.IntN(10) {
	case 0:
		p.Src = c.address("own")
	case 1:
		p.Src = c.address("loopback")
	case 2:
		p.Src = c.address("other")
	}
	if p.Dst == passthrough6 && !p.Src.IsValid() {
		p.Src = Pod.Addresses[1] // what the kernel chooses depends on whether lo has the address
	}
	if c.in100(6) {
		p.Interface = "lo"
		if !p.Src.IsValid() {
			p.Src = c.address("own")
		}
	}
}
