package dump

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// ruleReader reads one rule of a listing, for packets of one family.
type ruleReader struct {
	*nft.RuleMaker
	family   ruleset.Family
	own      bool // the table is Shunt's
	table    *nftTable
	protocol string // that the rule has asked for
}

// passive are the statements that do not change where a packet goes. nft lists a
// conversion that it does not understand as null.
var passive = []string{"log", "last", "dup", "secmark", "flow", "continue", "comment"}

// renamed are the statements that the kernel has another name for. All of them, and
// those that are not known, become a condition that is not understood.
var renamed = map[string]string{
	"ct count": "connlimit", "ct helper": "objref", "ct timeout": "objref", "ct expectation": "objref", "tunnel": "objref",
	"set": "dynset", "map": "dynset", "meter": "dynset",
}

// statement reads one statement: a condition, or what the rule does.
func (r *ruleReader) statement(statement any) {
	for name, value := range object(statement) {
		of := object(value)
		_, named := value.(string) // a counter, limit or quota that has a name
		switch {
		case named:
			r.AddOpaque("objref")
		case name == "counter":
			r.count(of)
		case slices.Contains(passive, name):
		case name == "match":
			r.match(of)
		case name == "vmap":
			r.verdictMap(of)
		case name == "mangle":
			r.mangle(of)
		case name == "xt":
			r.extension(of)
		case name == "snat" && r.ofOther(of):
		case name == "dnat":
			r.dnat(of)
		case name == "tproxy" && r.ofOther(of), name == "reject" && r.otherReject(of):
			r.Never = true
		default:
			r.action(name, of)
		}
	}
}

// action reads what a rule does to a packet.
func (r *ruleReader) action(name string, of map[string]any) {
	if target := r.target(name, of); target != nil {
		r.AddTarget(target)
		return
	}
	r.AddOpaque(cmp.Or(renamed[name], name))
}

// count keeps what the rule has counted.
func (r *ruleReader) count(of map[string]any) {
	if count, is := of["packets"].(float64); is && count >= 0 {
		packets := uint64(count)
		r.Packets = &packets
	}
}

// target returns what a statement does to a packet; nil if it is none of these.
func (r *ruleReader) target(name string, of map[string]any) ruleset.Target {
	if verdict := verdictOf(name, of); verdict != nil {
		return verdict
	}
	switch name {
	case "redirect":
		return ruleset.Redirect{Port: portOf(of["port"])}
	case "tproxy":
		return r.tproxy(of)
	case "reject":
		return r.reject(of)
	case "masquerade", "snat":
		text, _ := of["addr"].(string)
		addr, _ := netip.ParseAddr(text)
		return nft.SourceTarget(addr)
	case "notrack":
		return ruleset.NoTrack{}
	case "queue":
		return ruleset.OpaqueTarget{Args: []string{"-j", "NFQUEUE"}}
	case "synproxy":
		return ruleset.OpaqueTarget{Args: []string{"-j", "SYNPROXY"}}
	case "fwd":
		return nft.UnknownTarget("fwd")
	}
	return nil
}

// verdictOf returns a verdict; nil if it is none.
func verdictOf(name string, of map[string]any) ruleset.Target {
	chain, _ := of["target"].(string)
	switch name {
	case "accept":
		return ruleset.Accept
	case "drop":
		return ruleset.Drop
	case "return":
		return ruleset.Return
	case "jump":
		return ruleset.Jump{Chain: chain}
	case "goto":
		return ruleset.Jump{Chain: chain, Goto: true}
	}
	return nil
}

func (r *ruleReader) tproxy(of map[string]any) ruleset.Target {
	target := ruleset.TProxy{Port: portOf(of["port"]), Address: netip.IPv4Unspecified()}
	if r.family == ruleset.IPv6 {
		target.Address = netip.IPv6Unspecified()
	}
	if addr, ok := addressOf(of["addr"]); ok {
		target.Address = addr
	}
	return target
}

func (r *ruleReader) reject(of map[string]any) ruleset.Target {
	with, _ := of["expr"].(string)
	if !r.own || with != "port-unreachable" {
		return ruleset.Reject{}
	}
	if r.family == ruleset.IPv6 {
		return ruleset.Reject{With: "icmp6-port-unreachable"}
	}
	return ruleset.Reject{With: "icmp-port-unreachable"}
}

// ofOther reports whether a statement is for packets of the other family.
func (r *ruleReader) ofOther(of map[string]any) bool {
	family, given := of["family"].(string)
	return given && family != nftFamilies[r.family]
}

// otherReject reports whether the answer to the sender is one of the other family.
func (r *ruleReader) otherReject(of map[string]any) bool {
	return of["type"] == "icmp" && r.family != ruleset.IPv4 || of["type"] == "icmpv6" && r.family != ruleset.IPv6
}

// dnat reads the translation of a destination. One that a map gives is not known.
func (r *ruleReader) dnat(of map[string]any) {
	if r.ofOther(of) {
		return
	}
	target := ruleset.DNAT{Port: portOf(of["port"])}
	if of["addr"] != nil {
		addr, ok := addressOf(of["addr"])
		if !ok {
			r.operand(object(object(of["addr"])["map"])["key"])
			r.AddTarget(nft.UnknownTarget("nat to a map"))
			return
		}
		target.Address = addr
	}
	r.AddTarget(target)
}

// portOf returns a port, or the first of a range; 0 for none.
func portOf(value any) uint16 {
	if between, is := object(value)["range"].([]any); is && len(between) > 0 {
		value = between[0]
	}
	if port, is := value.(float64); is && port >= 0 && port < 1<<16 {
		return uint16(port)
	}
	return 0
}

// addressOf returns an address, or the first of a range.
func addressOf(value any) (netip.Addr, bool) {
	if between, is := object(value)["range"].([]any); is && len(between) > 0 {
		value = between[0]
	}
	text, _ := value.(string)
	addr, err := netip.ParseAddr(text)
	return addr, err == nil
}

// extension reads a match or target of iptables' own kind. nft prints only its name.
func (r *ruleReader) extension(of map[string]any) {
	name := fmt.Sprint(of["name"])
	switch {
	case of["type"] == "target":
		r.AddTarget(ruleset.OpaqueTarget{Args: []string{"-j", name}})
	case name != "comment":
		r.AddOpaque(name)
	}
}

// mangle reads a statement that sets something. Only marks, zones and where the
// packet goes matter here.
func (r *ruleReader) mangle(of map[string]any) {
	for kind, what := range object(of["key"]) {
		key := fmt.Sprint(object(what)["key"])
		switch {
		case kind == "meta" && key == "mark":
			r.SetMark(false, r.operand(of["value"]))
		case kind == "ct" && key == "mark":
			r.SetMark(true, r.operand(of["value"]))
		case kind == "ct" && key == "zone":
			if zone, is := of["value"].(float64); is && zone >= 0 && zone < 1<<16 {
				r.AddTarget(ruleset.ConntrackZone{Zone: uint16(zone)})
			}
		case kind == "payload":
			switch r.operand(of["key"]).Property {
			case nft.PropertySource, nft.PropertyDestination, nft.PropertySourcePort, nft.PropertyDestinationPort:
				r.AddTarget(nft.UnknownTarget("payload set"))
			}
		}
	}
}

// match reads a comparison.
func (r *ruleReader) match(of map[string]any) {
	left, right := markOfPrefix(r.operand(of["left"]), of["right"])
	if r.Never {
		return
	}
	operation, _ := of["op"].(string)
	negated := operation == "!="
	switch {
	case operation == "in": // bits of which one has to be set
		if bits, ok := encode(left.Property, right, r.family); ok {
			left.Mask, left.Xor = bits.First, make([]byte, len(bits.First))
			r.AddComparison(left, nft.NotEqual, make([]byte, len(bits.First)))
			return
		}
		r.AddOpaque("expression")
	case operation == "==" || negated:
		elements, isSet, ok := r.elements(left.Property, right)
		switch {
		case !ok:
			r.AddOpaque("expression")
		case isSet && left.Property == nft.PropertyUnknown && object(of["left"])["concat"] == nil:
			r.AddOpaque("set")
		default:
			r.AddMembership(left, elements, negated)
			r.note(left, right, operation)
		}
	default:
		if value, ok := encode(left.Property, right, r.family); ok {
			r.AddComparison(left, nft.Operation(operation), value.First)
			return
		}
		r.AddOpaque("expression")
	}
}

// note keeps the protocol that a match asks for.
func (r *ruleReader) note(left nft.Operand, right any, operation string) {
	if name, is := right.(string); is && left.Property == nft.PropertyProtocol && operation == "==" {
		r.protocol = name
	}
}

// verdictMap reads a map from values to verdicts.
func (r *ruleReader) verdictMap(of map[string]any) {
	key := r.operand(of["key"])
	if r.Never {
		return
	}
	pairs, _ := object(of["data"])["set"].([]any)
	if name, is := of["data"].(string); is {
		var known bool
		if pairs, known = r.table.named(name); !known {
			r.AddOpaque("set")
			return
		}
	}
	var elements []nft.Element
	for _, pair := range pairs {
		both, is := pair.([]any)
		if !is || len(both) != 2 {
			continue
		}
		element, ok := encode(key.Property, both[0], r.family)
		if !ok {
			element = nft.Element{First: []byte{0}}
			key.Property = nft.PropertyUnknown
		}
		for name, verdict := range object(both[1]) {
			element.Verdict = verdictOf(name, object(verdict))
		}
		elements = append(elements, element)
	}
	r.AddVerdicts(key, sorted(elements))
}

// elements returns the values that the right side of a comparison has. It is a set
// if it is one that the kernel keeps.
func (r *ruleReader) elements(of nft.Property, right any) (elements []nft.Element, isSet, ok bool) {
	values, isSet := object(right)["set"].([]any)
	if name, is := right.(string); is && len(name) > 0 && name[0] == '@' {
		var known bool
		if values, known = r.table.named(name); !known {
			return nil, true, false
		}
		isSet = true
	}
	if !isSet {
		values = []any{right}
	}
	for _, value := range values {
		element, ok := encode(of, value, r.family)
		if !ok && of != nft.PropertyUnknown {
			return nil, isSet, false
		}
		elements = append(elements, element)
	}
	return sorted(elements), isSet, true
}

// sorted puts elements in the order in which the kernel's sets are read.
func sorted(elements []nft.Element) []nft.Element {
	slices.SortStableFunc(elements, func(a, b nft.Element) int { return bytes.Compare(a.First, b.First) })
	return elements
}

func nativeBytes(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
