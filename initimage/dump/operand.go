package dump

import (
	"encoding/binary"
	"math"
	"net/netip"
	"strings"

	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// metaProperties are what meta loads, by its keys.
var metaProperties = map[string]nft.Property{
	"l4proto": nft.PropertyProtocol, "nfproto": nft.PropertyFamily, "protocol": nft.PropertyEtherType,
	"iif": nft.PropertyInInterface, "oif": nft.PropertyOutInterface,
	"iifname": nft.PropertyInInterface, "oifname": nft.PropertyOutInterface,
	"mark": nft.PropertyMark, "skuid": nft.PropertyUID, "skgid": nft.PropertyGID,
}

// fieldProperties are the fields of headers that are understood.
var fieldProperties = map[string]nft.Property{
	"ip saddr": nft.PropertySource, "ip daddr": nft.PropertyDestination, "ip protocol": nft.PropertyProtocol,
	"ip6 saddr": nft.PropertySource, "ip6 daddr": nft.PropertyDestination, "ip6 nexthdr": nft.PropertyProtocol,
	"tcp sport": nft.PropertySourcePort, "tcp dport": nft.PropertyDestinationPort,
	"udp sport": nft.PropertySourcePort, "udp dport": nft.PropertyDestinationPort,
	"th sport": nft.PropertySourcePort, "th dport": nft.PropertyDestinationPort,
	"tcp flags": nft.PropertyTCPFlags,
}

// protocolNumbers are the transport protocols that nft names.
var protocolNumbers = map[string]byte{
	"tcp": 6, "udp": 17, "udplite": 136, "sctp": 132, "dccp": 33, "esp": 50, "ah": 51, "comp": 108, "igmp": 2, "gre": 47,
	"icmp": 1, "icmpv6": 58, "ipv6-icmp": 58,
}

// operand returns what an expression stands for. It adds the conditions that nft
// leaves out of a listing: that a packet whose port is compared is of its protocol.
func (r *ruleReader) operand(expression any) nft.Operand {
	if number, is := expression.(float64); is {
		return nft.Operand{Property: nft.PropertyConstant, Value: nativeBytes(uint32(number))}
	}
	for kind, value := range object(expression) {
		of := object(value)
		key, _ := of["key"].(string)
		switch kind {
		case "meta":
			return nft.Operand{Property: metaProperties[key]}
		case "ct", "socket":
			return nft.Operand{Property: r.stateProperty(kind, key)}
		case "payload":
			return r.payload(of)
		case "tcp option":
			r.require("tcp")
		case "exthdr":
			r.Never = r.Never || r.family != ruleset.IPv6
		case "fib":
			return fib(of)
		case "&", "|", "^":
			if parts, is := value.([]any); is && len(parts) == 2 {
				return r.bitwise(kind, parts[0], parts[1])
			}
		case "concat":
			parts, _ := value.([]any)
			for _, part := range parts {
				r.operand(part)
			}
		}
	}
	return nft.Operand{}
}

// stateProperty is what ct or socket loads. Of a socket the mark is understood, in
// Shunt's table, which only looks for marks that no listener has.
func (r *ruleReader) stateProperty(kind, key string) nft.Property {
	switch {
	case kind == "ct":
		return map[string]nft.Property{"state": nft.PropertyState, "mark": nft.PropertyConnMark}[key]
	case r.own && key == "mark":
		return nft.PropertySocketMark
	}
	return nft.PropertyUnknown
}

func (r *ruleReader) payload(of map[string]any) nft.Operand {
	protocol, _ := of["protocol"].(string)
	field, _ := of["field"].(string)
	switch protocol {
	case "ip", "icmp":
		r.Never = r.Never || r.family != ruleset.IPv4
	case "ip6", "icmpv6":
		r.Never = r.Never || r.family != ruleset.IPv6
	case "arp", "vlan":
		r.Never = true
	}
	if protocolNumbers[protocol] != 0 {
		r.require(protocol)
	}
	return nft.Operand{Property: fieldProperties[protocol+" "+field]}
}

// require adds the condition that a packet has a transport protocol, unless the rule
// has it already.
func (r *ruleReader) require(protocol string) {
	if r.protocol != protocol && !r.Never {
		r.protocol = protocol
		r.AddMembership(nft.Operand{Property: nft.PropertyProtocol}, []nft.Element{{First: []byte{protocolNumbers[protocol]}}}, false)
	}
}

// fib is what the routing table says of an address. Its type is understood.
func fib(of map[string]any) nft.Operand {
	if flags := strings.Join(words(of["flags"]), " "); of["result"] == "type" && flags == "saddr" {
		return nft.Operand{Property: nft.PropertySourceType}
	} else if of["result"] == "type" && flags == "daddr" {
		return nft.Operand{Property: nft.PropertyDestinationType}
	}
	return nft.Operand{}
}

// bitwise combines an operand with a constant. Of marks the kernel keeps a mask and
// a value that is xor-ed in, of all others a mask.
func (r *ruleReader) bitwise(operation string, left, right any) nft.Operand {
	of := r.operand(left)
	if of.Property != nft.PropertyMark && of.Property != nft.PropertyConnMark && of.Property != nft.PropertySocketMark {
		bits, ok := encode(of.Property, right, r.family)
		if operation != "&" || of.Mask != nil || !ok {
			return nft.Operand{}
		}
		of.Mask, of.Xor = bits.First, make([]byte, len(bits.First))
		return of
	}
	value, ok := number(right)
	if !ok {
		return nft.Operand{}
	}
	mask, xor := uint32(math.MaxUint32), uint32(0)
	if of.Mask != nil {
		mask, xor = binary.NativeEndian.Uint32(of.Mask), binary.NativeEndian.Uint32(of.Xor)
	}
	switch operation {
	case "&":
		mask, xor = mask&value, xor&value
	case "|":
		mask, xor = mask&^value, xor|value
	default:
		xor ^= value
	}
	of.Mask, of.Xor = nativeBytes(mask), nativeBytes(xor)
	return of
}

// markOfPrefix returns a mark and its value as they are without a prefix, by which nft
// lists a mask of a mark's first bits.
func markOfPrefix(of nft.Operand, value any) (nft.Operand, any) {
	prefix := object(object(value)["prefix"])
	switch of.Property {
	case nft.PropertyMark, nft.PropertyConnMark, nft.PropertySocketMark:
		if bits, ok := number(prefix["len"]); ok && bits <= 32 && of.Mask == nil {
			of.Mask, of.Xor = nativeBytes(math.MaxUint32<<(32-bits)), nativeBytes(0)
			return of, prefix["addr"]
		}
	}
	return of, value
}

// bitNames are the names of bits and numbers, by the property that has them.
var bitNames = map[nft.Property]map[string]uint32{
	nft.PropertyState:    {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64},
	nft.PropertyTCPFlags: {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128},
	nft.PropertySourceType: {"unspec": 0, "unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5,
		"blackhole": 6, "unreachable": 7, "prohibit": 8},
	nft.PropertyFamily:    {"ipv4": 2, "ipv6": 10},
	nft.PropertyEtherType: {"ip": 0x0800, "ip6": 0x86dd, "arp": 0x0806, "vlan": 0x8100},
}

// encode returns a value as the kernel has it, or a range of values.
func encode(of nft.Property, value any, family ruleset.Family) (nft.Element, bool) {
	wrapped := object(value)
	if inner, is := wrapped["elem"]; is {
		return encode(of, object(inner)["val"], family)
	}
	if between, is := wrapped["range"].([]any); is {
		if len(between) != 2 {
			return nft.Element{}, false
		}
		first, okFirst := encode(of, between[0], family)
		last, okLast := encode(of, between[1], family)
		return nft.Element{First: first.First, Last: last.First}, okFirst && okLast
	}
	if text, is := value.(string); is {
		if addr, mask, is := strings.Cut(text, "/"); is && mask != "" {
			bits, ok := number(mask)
			wrapped = map[string]any{"prefix": map[string]any{"addr": addr, "len": float64(bits)}}
			if !ok {
				return nft.Element{}, false
			}
		}
	}
	if prefix := object(wrapped["prefix"]); prefix != nil {
		return encodePrefix(of, prefix)
	}
	return encodeValue(of, value, family)
}

// encodeValue returns a single value as the kernel has it.
func encodeValue(of nft.Property, value any, family ruleset.Family) (nft.Element, bool) {
	switch of {
	case nft.PropertySource, nft.PropertyDestination:
		addr, ok := addressOf(value)
		return nft.Element{First: addr.AsSlice()}, ok && family.Of(addr)
	case nft.PropertyInInterface, nft.PropertyOutInterface:
		return encodeName(value)
	case nft.PropertyProtocol:
		if n, known := protocolNumbers[strings.Join(words(value), " ")]; known {
			return nft.Element{First: []byte{n}}, true
		}
	}
	n, ok := numberOf(of, value)
	if !ok {
		return nft.Element{}, false
	}
	switch of {
	case nft.PropertyProtocol, nft.PropertyFamily, nft.PropertyTCPFlags:
		return nft.Element{First: []byte{byte(n)}}, n <= math.MaxUint8
	case nft.PropertySourcePort, nft.PropertyDestinationPort, nft.PropertyEtherType:
		return nft.Element{First: binary.BigEndian.AppendUint16(nil, uint16(n))}, n <= math.MaxUint16
	case nft.PropertyUnknown:
		return nft.Element{}, false
	}
	return nft.Element{First: nativeBytes(n)}, true
}

// encodePrefix returns the addresses of a prefix.
func encodePrefix(of nft.Property, prefix map[string]any) (nft.Element, bool) {
	addr, okAddr := addressOf(prefix["addr"])
	bits, okBits := number(prefix["len"])
	if !okAddr || !okBits || of != nft.PropertySource && of != nft.PropertyDestination || int(bits) > addr.BitLen() {
		return nft.Element{}, false
	}
	all := netip.PrefixFrom(addr, int(bits)).Masked()
	return nft.Element{First: all.Addr().AsSlice(), Last: nft.LastAddress(all).AsSlice()}, true
}

// nameSize is the size of an interface's name in the kernel (IFNAMSIZ).
const nameSize = 16

// encodeName returns the name of an interface. With an asterisk it stands for all
// that begin with it.
func encodeName(value any) (nft.Element, bool) {
	name, is := value.(string)
	if !is || name == "" || len(name) >= nameSize {
		return nft.Element{}, false
	}
	if stem, wild := strings.CutSuffix(name, "*"); wild {
		return nft.Element{First: []byte(stem)}, true
	}
	return nft.Element{First: append([]byte(name), make([]byte, nameSize-len(name))...)}, true
}

// numberOf reads a number, or the names of bits.
func numberOf(of nft.Property, value any) (uint32, bool) {
	if n, ok := number(value); ok {
		return n, true
	}
	if of == nft.PropertyDestinationType {
		of = nft.PropertySourceType
	}
	names := words(value)
	if alternatives, is := object(value)["|"].([]any); is {
		names = words(alternatives)
	}
	var all uint32
	for _, name := range names {
		n, known := bitNames[of][name]
		if !known {
			return 0, false
		}
		all |= n
	}
	return all, len(names) > 0
}

// number reads a number of up to 32 bits.
func number(value any) (uint32, bool) {
	n, is := value.(float64)
	return uint32(n), is && n >= 0 && n <= math.MaxUint32 && n == math.Trunc(n)
}

// object returns the members of a JSON object; none of anything else.
func object(value any) map[string]any {
	members, _ := value.(map[string]any)
	return members
}
