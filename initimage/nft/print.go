package nft

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// keyword is the family's name in nft's expressions and in its list of tables.
func keyword(family ruleset.Family) string {
	if family == ruleset.IPv6 {
		return "ip6"
	}
	return "ip"
}

// String prints the table as nft -f reads it. A table of the same name is replaced,
// in one transaction.
func (t Table) String() string {
	var b strings.Builder
	name := keyword(t.Family) + " " + TableName
	fmt.Fprintf(&b, "table %s\ndelete table %s\n", name, name) // nft deletes only what there is
	if len(t.Chains) == 0 {
		return b.String()
	}
	fmt.Fprintf(&b, "table %s {\n", name)
	for _, s := range t.Sets {
		fmt.Fprintf(&b, "\tset %s {\n\t\ttype %s\n\t\tflags interval\n\t\telements = { %s }\n\t}\n", s.Name, s.kind(t.Family), s.elements())
	}
	for _, c := range t.Chains {
		fmt.Fprintf(&b, "\tchain %s {\n", c.Name)
		if c.Hook != nil {
			fmt.Fprintf(&b, "\t\ttype %s hook %s priority %d; policy accept;\n", c.Hook.Type, c.Hook.Name, c.Hook.Priority)
		}
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "\t\t%s\n", r.text(t.Family))
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

func (s Set) kind(family ruleset.Family) string {
	switch {
	case s.Ports != nil:
		return "inet_service"
	case family == ruleset.IPv6:
		return "ipv6_addr"
	default:
		return "ipv4_addr"
	}
}

func (s Set) elements() string {
	var words []string
	for _, p := range s.Prefixes {
		words = append(words, address(p))
	}
	for _, r := range s.Ports {
		words = append(words, r.String())
	}
	return strings.Join(words, ", ")
}

func address(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func (r Rule) text(family ruleset.Family) string {
	var words []string
	for _, m := range r.Matches {
		words = append(words, match(family, m))
	}
	if r.Set != nil {
		words = append(words, r.Set.lookup(family))
	}
	words = append(words, "counter", action(family, r.Target))
	if r.Comment != "" {
		words = append(words, `comment "`+r.Comment+`"`)
	}
	return strings.Join(words, " ")
}

func (s Set) lookup(family ruleset.Family) string {
	end := "d"
	if s.Source {
		end = "s"
	}
	if s.Ports != nil {
		return "th " + end + "port @" + s.Name
	}
	return keyword(family) + " " + end + "addr @" + s.Name
}

func not(negated bool) string {
	if negated {
		return "!= "
	}
	return ""
}

// match prints a condition that check knows.
func match(family ruleset.Family, m ruleset.Match) string {
	switch m := m.(type) {
	case ruleset.Source:
		return fmt.Sprintf("%s saddr %s%s", keyword(family), not(m.Not), address(m.Prefix))
	case ruleset.Destination:
		return fmt.Sprintf("%s daddr %s%s", keyword(family), not(m.Not), address(m.Prefix))
	case ruleset.InInterface:
		return "iifname " + not(m.Not) + wildcard(m.Name)
	case ruleset.OutInterface:
		return "oifname " + not(m.Not) + wildcard(m.Name)
	case ruleset.Protocol:
		return "meta l4proto " + not(m.Not) + m.Name
	case ruleset.Ports:
		if m.Source {
			return "th sport " + not(m.Not) + m.Ranges.String()
		}
		return "th dport " + not(m.Not) + m.Ranges.String()
	case ruleset.SYN:
		return "tcp flags & (fin | syn | rst | ack) " + equals(m.Not) + " syn"
	case ruleset.Owner:
		return owner(m)
	case ruleset.Mark:
		return mark(m)
	case ruleset.SocketMark:
		return strings.Replace(mark(ruleset.Mark{Value: m.Value, Mask: m.Mask}), "meta", "socket", 1)
	case ruleset.Conntrack:
		words := make([]string, len(m.States))
		for i, s := range m.States {
			words[i] = strings.ToLower(string(s))
		}
		return "ct state " + not(m.Not) + strings.Join(words, ",")
	case ruleset.AddressType:
		return addressType(m)
	default:
		panic(fmt.Sprintf("check let %T pass", m))
	}
}

func addressType(m ruleset.AddressType) string {
	if m.Destination {
		return "fib daddr type " + not(m.Not) + "local"
	}
	return "fib saddr type " + not(m.Not) + "local"
}

func owner(m ruleset.Owner) string {
	key, id := "skuid", strconv.FormatUint(uint64(m.First), 10)
	if m.Group {
		key = "skgid"
	}
	if m.Last != m.First {
		id += "-" + strconv.FormatUint(uint64(m.Last), 10)
	}
	return "meta " + key + " " + not(m.Not) + id
}

func mark(m ruleset.Mark) string {
	key := "meta mark"
	if m.Connection {
		key = "ct mark"
	}
	if m.Mask == allBits {
		return fmt.Sprintf("%s %s%#x", key, not(m.Not), m.Value)
	}
	return fmt.Sprintf("%s & %#x %s %#x", key, m.Mask, equals(m.Not), m.Value)
}

const allBits = 1<<32 - 1

func equals(negated bool) string {
	if negated {
		return "!="
	}
	return "=="
}

// wildcard quotes the name of an interface, and turns iptables' name of many into
// nft's.
func wildcard(name string) string {
	if stem, many := strings.CutSuffix(name, "+"); many {
		name = stem + "*"
	}
	return `"` + name + `"`
}

func tproxy(family ruleset.Family, t ruleset.TProxy) string {
	proxied := fmt.Sprintf("tproxy to :%d accept", t.Port)
	if t.Mask != 0 {
		return action(family, ruleset.SetMark{Value: t.Mark, Mask: t.Mask}) + " " + proxied
	}
	return proxied
}

// action prints a target that check knows.
func action(family ruleset.Family, t ruleset.Target) string {
	switch t := t.(type) {
	case ruleset.Verdict:
		return strings.ToLower(string(t))
	case ruleset.Jump:
		if t.Goto {
			return "goto " + t.Chain
		}
		return "jump " + t.Chain
	case ruleset.Redirect:
		return fmt.Sprintf("redirect to :%d", t.Port)
	case ruleset.Nowhere:
		return "drop"
	case ruleset.TProxy:
		return tproxy(family, t)
	case ruleset.SetMark:
		key := "meta mark"
		if t.Connection {
			key = "ct mark"
		}
		if t.Mask == allBits {
			return fmt.Sprintf("%s set %#x", key, t.Value)
		}
		return fmt.Sprintf("%s set %s & %#x ^ %#x", key, key, ^t.Mask, t.Value)
	case ruleset.SaveMark:
		return "ct mark set meta mark"
	case ruleset.RestoreMark:
		return "meta mark set ct mark"
	case ruleset.ConntrackZone:
		return fmt.Sprintf("ct zone set %d", t.Zone)
	case ruleset.Reject:
		if family == ruleset.IPv6 {
			return "reject with icmpv6 port-unreachable"
		}
		return "reject with icmp port-unreachable"
	default:
		panic(fmt.Sprintf("check let %T pass", t))
	}
}

// Text prints a rule set as its backend takes it: as nft -f reads it if that is a
// native table, or else as iptables-restore does. The routing follows as comments.
func Text(rs ruleset.RuleSet, backend interception.Backend) (string, error) {
	if backend != interception.BackendNFTables {
		return rs.String(), nil
	}
	table, err := Compile(rs)
	if err != nil {
		return "", err
	}
	return table.String() + ruleset.RuleSet{Family: rs.Family, Routing: rs.Routing}.String(), nil
}
