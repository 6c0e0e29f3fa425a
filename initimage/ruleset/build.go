package ruleset

import (
	"strconv"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// Names of the chains. Each holds one decision; the built-in chains hold
// nothing of ours but the jumps to them.
const (
	chainInbound    = ChainPrefix + "INBOUND"     // which connections to the pod go to the proxy
	chainInRedirect = ChainPrefix + "IN_REDIRECT" // they do, by REDIRECT
	chainTProxy     = ChainPrefix + "TPROXY"      // they do, by TPROXY
	chainOutput     = ChainPrefix + "OUTPUT"      // whose connections are the pod's own
	chainOutbound   = ChainPrefix + "OUTBOUND"    // which destinations of those go to the proxy
	chainRedirect   = ChainPrefix + "REDIRECT"    // they do
)

// Build returns the rules of a spec for one family. The spec must have passed
// Validate.
func Build(spec interception.Spec, family Family) RuleSet {
	b := &builder{spec: spec, family: family}
	rs := RuleSet{Family: family}
	switch spec.System {
	case interception.SystemTProxy:
		rs.Tables = []Table{b.tproxyMangle(), b.tproxyNAT()}
		rs.Routing = Routing{
			Rules:  []PolicyRule{{Mark: spec.Mark, Mask: allBits, Table: spec.RouteTable}},
			Routes: []LocalRoute{{Table: spec.RouteTable}},
		}
	default:
		rs.Tables = []Table{b.redirectNAT()}
		if family == IPv6 {
			rs.Routing.Addresses = append(rs.Routing.Addresses, family.passthroughSource())
		}
	}
	rs.canonical()
	return rs
}

// builder makes the rules of one spec and family.
type builder struct {
	spec   interception.Spec
	family Family
}

// rule puts a rule together: why it is there, what it does, to what.
func rule(why string, target Target, matches ...Match) Rule {
	return Rule{Matches: matches, Target: target, Comment: ownedComment + why}
}

// Matches that many rules share.

var tcp = Protocol{Name: "tcp"}

var (
	inLoopback  = InInterface{Name: loopbackName}
	outLoopback = OutInterface{Name: loopbackName}
)

func (b *builder) toLoopback(not bool) Match { return Destination{b.family.loopback(), not} }

func (b *builder) fromPassthrough() Match { return Source{Prefix: b.family.passthroughSource()} }

func marked(mark uint32) Mark { return Mark{Value: mark, Mask: allBits} }

// owners are the matches of a connection of the proxy: one for each uid and
// gid, any of which is enough.
func (b *builder) owners() []Owner {
	var owners []Owner
	for _, uid := range b.spec.ProxyUIDs {
		owners = append(owners, Owner{First: uid, Last: uid})
	}
	for _, gid := range b.spec.ProxyGIDs {
		owners = append(owners, Owner{Group: true, First: gid, Last: gid})
	}
	return owners
}

func (m Owner) describe() string {
	if m.Group {
		return "gid " + strconv.FormatUint(uint64(m.First), 10)
	}
	return "uid " + strconv.FormatUint(uint64(m.First), 10)
}

// multiportSlots is the number of ports that one multiport match holds
// (XT_MULTI_PORTS of linux/netfilter/xt_multiport.h); a range takes two.
const multiportSlots = 15

// portMatches returns matches of tcp destination ports, any of which is
// enough, as few as the multiport extension allows.
func portMatches(ranges interception.PortRanges) []Match {
	var matches []Match
	var part interception.PortRanges
	slots := 0
	for _, r := range ranges {
		need := 1
		if r.First != r.Last {
			need = 2
		}
		if slots+need > multiportSlots {
			matches = append(matches, DestinationPorts{Protocol: "tcp", Ranges: part})
			part, slots = nil, 0
		}
		part = append(part, r)
		slots += need
	}
	if part != nil {
		matches = append(matches, DestinationPorts{Protocol: "tcp", Ranges: part})
	}
	return matches
}

// forPorts repeats a rule for tcp destination ports.
func forPorts(why string, target Target, ranges interception.PortRanges, matches ...Match) []Rule {
	var rules []Rule
	for _, ports := range portMatches(ranges) {
		all := append([]Match{tcp, ports}, matches...)
		rules = append(rules, rule(why, target, all...))
	}
	return rules
}

// prefixesOf returns the ranges that are of the builder's family.
func (b *builder) prefixesOf(all interception.Prefixes) interception.Prefixes {
	var own interception.Prefixes
	for _, p := range all {
		if b.family.Of(p.Addr()) {
			own = append(own, p)
		}
	}
	return own
}
