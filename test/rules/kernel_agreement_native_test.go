//go:build linux

package rules

import (
	"fmt"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// nativeChains are the base chains that others make: no priority is that of a table of iptables, since
// nobody can see which of two chains of the same priority is older.
var nativeChains = []struct {
	kind, hook string
	priorities []int
}{
	{"filter", "prerouting", []int{-310, -250, -160, -140, -90}},
	{"filter", "input", []int{-160, -10, 10, 90}},
	{"filter", "forward", []int{-10, 10}},
	{"filter", "output", []int{-310, -160, -90, 10}},
	{"route", "output", []int{-155, -145}},
	{"filter", "postrouting", []int{-140, 95}},
	{"nat", "prerouting", []int{-110, -90}},
	{"nat", "output", []int{-110, -90}},
	{"nat", "postrouting", []int{90, 110}},
}

// nativeRules returns a random table of nf_tables, as nft reads it.
func (c *chance) nativeRules() string {
	kind := one(c, "inet", "inet", c.ip())
	var text strings.Builder
	fmt.Fprintf(&text, "table %s theirs {\n", kind)
	for i, chain := range nativeChains {
		if !c.in100(45) {
			continue
		}
		name := fmt.Sprintf("c%d", i)
		var body strings.Builder
		policy := "accept"
		if chain.kind != "nat" && c.in100(3) {
			policy = "drop"
		}
		fmt.Fprintf(&body, "\tchain %s {\n\t\ttype %s hook %s priority %d; policy %s;\n",
			name, chain.kind, chain.hook, one(c, chain.priorities...), policy)
		for range 1 + c.IntN(4) {
			if c.in100(20) {
				next := fmt.Sprintf("%s_%d", name, text.Len())
				fmt.Fprintf(&text, "\tchain %s {\n", next)
				for range 1 + c.IntN(3) {
					fmt.Fprintf(&text, "\t\t%s\n", c.nativeRule(chain.kind, chain.hook))
				}
				text.WriteString("\t}\n")
				fmt.Fprintf(&body, "\t\t%s %s %s\n", c.nativeMatches(chain.hook), one(c, "jump", "jump", "goto"), next)
				continue
			}
			fmt.Fprintf(&body, "\t\t%s\n", c.nativeRule(chain.kind, chain.hook))
		}
		text.WriteString(body.String() + "\t}\n")
	}
	return text.String() + "}\n"
}

func (c *chance) nativeRule(chain, hook string) string {
	matches := c.nativeMatches(hook)
	if c.in100(8) && !namesProtocol(matches) {
		return matches + " tcp dport vmap { 80 : accept, 20-30 : drop, 8080 : return }"
	}
	if c.in100(20) {
		return matches + " " + one(c, "accept", "accept", "return", "counter", "log group 99")
	}
	if c.in100(30) {
		return matches + " " + one(c, "meta mark set "+c.nativeMark(), "meta mark set meta mark or 0x4000", "ct mark set "+c.nativeMark(),
			"ct mark set meta mark", "meta mark set ct mark", "meta mark set meta mark and 0xff xor 0x1")
	}
	return c.nativeEnd(matches, chain, hook)
}

// nativeEnd returns a rule that drops packets or has them go elsewhere, as a kind of chain allows at a
// hook. It has other conditions than the given ones where it needs a protocol.
func (c *chance) nativeEnd(matches, chain, hook string) string {
	portsOf := one(c, "tcp", "tcp", "udp")
	switch {
	case chain == "nat" && (hook == "output" || hook == "prerouting"):
		return c.nativeWith(portsOf) + one(c, " redirect to :"+c.port(), " redirect",
			fmt.Sprintf(" dnat %s to %s", c.ip(), one(c, servers[c.family]...)), fmt.Sprintf(" dnat %s to %s", c.ip(), c.to(true)))
	case chain == "nat":
		return matches + " masquerade"
	case hook == "prerouting" && c.in100(40):
		mark := one(c, " meta mark set "+c.nativeMark()+" accept", " accept", "")
		return c.nativeWith(portsOf) + fmt.Sprintf(" tproxy %s to :%d", c.ip(), one(c, transparentPorts...)) + mark
	case (hook == "prerouting" || hook == "output") && c.in100(30):
		return matches + " notrack"
	case hook == "input" || hook == "output":
		if strings.Contains(matches, "tcp dport") && c.in100(50) {
			return matches + " reject with tcp reset"
		}
		return matches + one(c, " drop", " reject")
	}
	return matches + " drop"
}

func namesProtocol(matches string) bool {
	return strings.Contains(matches, "tcp") || strings.Contains(matches, "udp")
}

// nativeWith returns conditions with a protocol, which some statements need.
func (c *chance) nativeWith(protocol string) string {
	return one(c, "meta l4proto "+protocol, fmt.Sprintf("%s dport %s", protocol, c.port()),
		fmt.Sprintf("%s dport != { %s, 7000-7100 }", protocol, c.port())) +
		one(c, "", fmt.Sprintf(" %s daddr %s", c.ip(), c.prefixBut0()))
}

// ip returns nft's word for the family.
func (c *chance) ip() string {
	return map[ruleset.Family]string{ruleset.IPv4: "ip", ruleset.IPv6: "ip6"}[c.family]
}

func (c *chance) prefixBut0() string {
	for {
		if p := c.prefix(); !strings.HasSuffix(p, "/0") {
			return p
		}
	}
}

func (c *chance) nativeMark() string {
	mark := one[uint32](c, 1, 0x539, 0x111, 0x4000)
	c.marks = append(c.marks, mark)
	return fmt.Sprintf("%#x", mark)
}

func (c *chance) nativeNot() string { return one(c, "", "", "!= ") }

// conditions are those of one rule.
type conditions []string

func (all *conditions) add(format string, values ...any) {
	*all = append(*all, fmt.Sprintf(format, values...))
}

// nativeMatches returns conditions of a rule, a few or none.
func (c *chance) nativeMatches(hook string) string {
	all := c.nativeWay(hook)
	if protocol := c.IntN(100); protocol < 10 {
		all.add("meta l4proto %s%s", c.nativeNot(), one(c, "tcp", "udp", "{ tcp, udp }"))
	} else if protocol < 45 {
		all.add("%s %s %s%s", one(c, "tcp", "tcp", "udp", "meta l4proto { tcp, udp } th"), one(c, "dport", "dport", "dport", "sport"),
			c.nativeNot(),
			one(c, c.port(), strings.Replace(c.portRange(), ":", "-", 1), "{ "+c.port()+", 20-30, 1024-2047 }", "1024-65535"))
	}
	if c.in100(20) {
		all.add("ct state %s%s", c.nativeNot(), one(c, "new", "established,related", "invalid", "untracked", "{ new, untracked }"))
	}
	if c.in100(10) {
		all.add("meta mark %s%s", c.nativeNot(), one(c, c.nativeMark(), "{ 0x1, 0x539 }"))
	}
	if c.in100(8) {
		all.add("meta mark and 0xfff %s", one(c, "== ", "!= ")+c.nativeMark())
	}
	if c.in100(8) {
		all.add("ct mark %s%s", c.nativeNot(), c.nativeMark())
	}
	if c.in100(15) && (hook == "output" || hook == "postrouting") {
		all.add("meta %s %s%s", one(c, "skuid", "skgid"), c.nativeNot(), one(c, c.id(), "1000-1999", "{ 0, 1337 }"))
	}
	if c.in100(10) && hook != "forward" {
		all.add("fib %s type %slocal", one(c, "daddr", "saddr"), c.nativeNot())
	}
	if c.in100(8) && !namesProtocol(strings.Join(all, " ")) {
		all.add("tcp flags & (fin|syn|rst|ack) %s syn", one(c, "==", "!="))
	}
	if c.in100(3) {
		all = append(all, one(c, "limit rate 1/second", "meta length 0-500", "ct direction original", "meta pkttype host",
			"ct status dnat"))
	}
	return strings.Join(all, " ")
}

// nativeWay returns conditions of where a packet comes from and goes to.
func (c *chance) nativeWay(hook string) (all conditions) {
	if c.in100(15) {
		all.add("%s saddr %s%s", c.ip(), c.nativeNot(), c.prefixBut0())
	}
	if c.in100(20) {
		all.add("%s daddr %s%s", c.ip(), c.nativeNot(), one(c, c.prefixBut0(), "{ "+one(c, servers[c.family]...)+", "+c.single()+" }"))
	}
	if c.in100(20) && hook != "output" && hook != "postrouting" {
		all.add("iifname %s%s", c.nativeNot(), one(c, `"eth0"`, `"eth1"`, `"lo"`, `"eth*"`))
	}
	if c.in100(20) && hook != "prerouting" && hook != "input" {
		all.add("oifname %s%s", c.nativeNot(), one(c, `"eth0"`, `"lo"`, `"lo"`, `"eth*"`))
	}
	return all
}

// single returns an address outside of the reference network.
func (c *chance) single() string {
	return map[ruleset.Family]string{ruleset.IPv4: "198.51.100.7", ruleset.IPv6: "2001:db8::7"}[c.family]
}
