package ruleset

import (
	"strconv"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// Names of the chains. Each holds one decision. The built-in chains hold jumps to
// them, and single rules that every packet has to meet.
const (
	chainInbound     = ChainPrefix + "INBOUND"      // which connections to the pod go to the proxy
	chainInRedirect  = ChainPrefix + "IN_REDIRECT"  // takes them there, by REDIRECT
	chainTProxy      = ChainPrefix + "TPROXY"       // takes them there, by TPROXY
	chainDirect      = ChainPrefix + "DIRECT"       // marks connections to the pod that do not go there
	chainInLoopback  = ChainPrefix + "IN_LOOPBACK"  // what comes in over lo
	chainOutput      = ChainPrefix + "OUTPUT"       // whose connections are intercepted
	chainOutLoopback = ChainPrefix + "OUT_LOOPBACK" // whose connections over lo are the proxy's
	chainOutbound    = ChainPrefix + "OUTBOUND"     // which destinations of those go to the proxy
	chainRedirect    = ChainPrefix + "REDIRECT"     // takes them there
	chainUDP         = ChainPrefix + "UDP"          // which udp packets to the pod go to the proxy
	chainDNSOutput   = ChainPrefix + "DNS_OUTPUT"   // whose DNS queries are captured
	chainDNS         = ChainPrefix + "DNS"          // which servers' queries are captured
	chainDNSZone     = ChainPrefix + "DNS_ZONE"     // the conntrack zone of a DNS packet
)

// Build returns the rules of a spec for one family. The spec must have passed
// Validate.
func Build(spec interception.Spec, family Family) RuleSet {
	b := &builder{spec: spec, family: family, raw: Table{Name: "raw"}, mangle: Table{Name: "mangle"},
		nat: Table{Name: "nat"}, filter: Table{Name: "filter"}}
	if spec.DropInvalid {
		b.mangle.add("PREROUTING", rule("packets of no connection", Drop, tcp, Conntrack{States: []State{Invalid}}))
	}
	switch spec.System {
	case interception.SystemTProxy:
		b.tproxy()
	case interception.SystemAmbient:
		b.ambient()
	case interception.SystemLegacy:
		b.legacy()
	default:
		b.redirect()
	}
	if b.capturesDNS() {
		b.dns()
	}
	if !spec.NoConntrack {
		b.guardLoopback()
	}
	rs := RuleSet{Family: family, Routing: b.routing}
	for _, t := range []Table{b.raw, b.mangle, b.nat, b.filter} {
		if len(t.Chains) > 0 {
			rs.Tables = append(rs.Tables, t)
		}
	}
	rs.Canonical()
	return rs
}

// builder makes the rules of one spec and family.
type builder struct {
	spec                     interception.Spec
	family                   Family
	raw, mangle, nat, filter Table
	routing                  Routing
}

// rule returns a rule: why it is there, what it does, to what.
func rule(why string, target Target, matches ...Match) Rule {
	return Rule{Matches: matches, Target: target, Comment: ownedComment + why}
}

// Matches that many rules share.

var tcp, udp = Protocol{Name: "tcp"}, Protocol{Name: "udp"}

var (
	inLoopback  = InInterface{Name: loopbackName}
	outLoopback = OutInterface{Name: loopbackName}
)

// beyondLoopback matches all but what the spec calls the loopback address. For IPv4
// all of 127.0.0.0/8 goes over lo, but Istio's rules mean only 127.0.0.1.
func (b *builder) beyondLoopback() Match {
	prefix := b.spec.LoopbackCIDR
	if b.family == IPv6 {
		prefix = hostPrefix(b.family.loopback())
	}
	return Destination{Prefix: prefix, Not: true}
}

func (b *builder) fromPassthrough() Match { return Source{Prefix: b.family.passthroughSource()} }

func marked(mark uint32) Mark { return Mark{Value: mark, Mask: allBits} }

// identity is one way to recognize a connection of the proxy, and its description.
type identity struct {
	match       Match
	description string
}

// proxy returns the ways to recognize the proxy's connections, any of which is
// enough: in ambient its mark, elsewhere each of its uids and gids.
func (b *builder) proxy() []identity {
	if b.spec.System == interception.SystemAmbient {
		return []identity{{Mark{Value: b.spec.Mark, Mask: interception.AmbientMask}, "mark"}}
	}
	var all []identity
	for _, uid := range b.spec.ProxyUIDs {
		all = append(all, identity{Owner{First: uid, Last: uid}, "uid " + strconv.FormatUint(uint64(uid), 10)})
	}
	for _, gid := range b.spec.ProxyGIDs {
		all = append(all, identity{ownerGroup(gid), "gid " + strconv.FormatUint(uint64(gid), 10)})
	}
	return all
}

func ownerGroup(gid uint32) Owner { return Owner{Group: true, First: gid, Last: gid} }

// forApp repeats a rule for the processes whose connections are intercepted: all of
// them, or those of some groups.
func (b *builder) forApp(why string, target Target, matches ...Match) []Rule {
	if b.spec.OwnerGroups.All {
		return []Rule{rule(why, target, matches...)}
	}
	var rules []Rule
	for _, gid := range b.spec.OwnerGroups.IDs {
		rules = append(rules, rule(why, target, append([]Match{ownerGroup(gid)}, matches...)...))
	}
	return rules
}

// exclude returns rules that leave a chain for connections of the proxy and of
// excluded groups.
func (b *builder) exclude(matches ...Match) []Rule {
	var rules []Rule
	for _, id := range b.proxy() {
		rules = append(rules, rule("connections of the proxy itself ("+id.description+")", Return,
			append([]Match{id.match}, matches...)...))
	}
	for _, gid := range b.spec.ExcludeOwnerGroups {
		rules = append(rules, rule("group left alone", Return, append([]Match{ownerGroup(gid)}, matches...)...))
	}
	return rules
}

// prefixesOf returns the prefixes that are of the builder's family.
func (b *builder) prefixesOf(all interception.Prefixes) interception.Prefixes {
	var own interception.Prefixes
	for _, p := range all {
		if b.family.Of(p.Addr()) {
			own = append(own, p)
		}
	}
	return own
}
