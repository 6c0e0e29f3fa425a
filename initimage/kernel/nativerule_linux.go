package kernel

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// nativeRule decodes one rule of nf_tables.
type nativeRule struct {
	*nft.RuleMaker
	reader    *nativeReader
	registers map[uint32]nft.Operand
}

func (r *nativeReader) rules(expressions [][]byte) ([]ruleset.Rule, error) {
	translator := nft.Translator{Family: r.family, Links: r.links, Own: r.own}
	rule := &nativeRule{RuleMaker: translator.Rule(), reader: r, registers: map[uint32]nft.Operand{}}
	for _, expression := range expressions {
		attrs := attributes(expression)
		if err := rule.addExpression(text(attrs[unix.NFTA_EXPR_NAME]), attributes(attrs[unix.NFTA_EXPR_DATA])); err != nil {
			return nil, err
		}
		if rule.Never {
			break
		}
	}
	return rule.Rules(), nil
}

// slot returns the place of a register, in words of four bytes. nf_tables counts
// registers in two ways.
func slot(register []byte) uint32 {
	r := nft.BigEndian(register)
	if r <= unix.NFT_REG_4 {
		return r * 4
	}
	return r - 4
}

// Attributes and values that x/sys/unix does not name
// (linux/netfilter/nf_tables.h).
const (
	bitwiseOperation  = 6
	tproxyFamily      = 1
	tproxyAddress     = 2
	tproxyPort        = 3
	natDestination    = 1
	lookupFlags       = 5
	lookupFlagInverse = 1
	matchName         = 1
)

// expressions are the readers of the known expressions, by the kernel's names.
var expressions = expressionReaders()

func expressionReaders() map[string]func(n *nativeRule, attrs attributeMap) error {
	passive := func(*nativeRule, attributeMap) error { return nil }
	does := func(target func(n *nativeRule, attrs attributeMap) ruleset.Target) func(*nativeRule, attributeMap) error {
		return func(n *nativeRule, attrs attributeMap) error {
			n.AddTarget(target(n, attrs))
			return nil
		}
	}
	always := func(t ruleset.Target) func(*nativeRule, attributeMap) error {
		return does(func(*nativeRule, attributeMap) ruleset.Target { return t })
	}
	return map[string]func(*nativeRule, attributeMap) error{
		"meta": (*nativeRule).meta, "ct": (*nativeRule).connection, "payload": (*nativeRule).payload, "exthdr": (*nativeRule).header,
		"immediate": (*nativeRule).immediate, "bitwise": (*nativeRule).bitwise, "byteorder": (*nativeRule).byteorder,
		"cmp": (*nativeRule).cmp, "range": (*nativeRule).inRange, "lookup": (*nativeRule).lookup,
		"nat": (*nativeRule).nat, "match": (*nativeRule).match,
		"redir": does(func(n *nativeRule, attrs attributeMap) ruleset.Target {
			return ruleset.Redirect{Port: n.port(attrs[unix.NFTA_REDIR_REG_PROTO_MIN])}
		}),
		"tproxy": (*nativeRule).tproxy,
		"target": does(func(_ *nativeRule, attrs attributeMap) ruleset.Target {
			return ruleset.OpaqueTarget{Args: []string{"-j", text(attrs[matchName])}}
		}),
		"masq":    always(ruleset.OpaqueTarget{Args: []string{"-j", "MASQUERADE"}}),
		"notrack": always(ruleset.NoTrack{}), "reject": does((*nativeRule).reject),
		"fib": (*nativeRule).fib, "socket": (*nativeRule).socket,
		"queue":    always(ruleset.OpaqueTarget{Args: []string{"-j", "NFQUEUE"}}),
		"synproxy": always(ruleset.OpaqueTarget{Args: []string{"-j", "SYNPROXY"}}),
		"fwd":      always(nft.UnknownTarget("fwd")),
		// These do not change where a packet goes.
		"counter": (*nativeRule).counter,
		"log":     passive, "last": passive, "dup": passive, "secmark": passive, "flow_offload": passive,
	}
}

// counter reads how many packets came as far as this in the rule.
func (n *nativeRule) counter(attrs attributeMap) error {
	if count := attrs[unix.NFTA_COUNTER_PACKETS]; len(count) == 8 {
		packets := binary.BigEndian.Uint64(count)
		n.Packets = &packets
	}
	return nil
}

// addExpression adds one expression. An unknown one that loads a register makes the
// register unknown. Any other, such as a limit or a quota, becomes an opaque match.
func (n *nativeRule) addExpression(name string, attrs attributeMap) error {
	if known := expressions[name]; known != nil {
		return known(n, attrs)
	}
	if register, loads := destinations[name]; loads {
		n.load(attrs[register], nft.Operand{})
		return nil
	}
	n.AddOpaque(name)
	return nil
}

// destinations are the attributes that name the register to load, of expressions
// that are not understood.
var destinations = map[string]uint16{"rt": 1, "numgen": 1, "hash": 2, "osf": 1, "tunnel": 2, "xfrm": 1}

func (n *nativeRule) load(register []byte, o nft.Operand) { n.registers[slot(register)] = o }

func (n *nativeRule) loaded(register []byte) nft.Operand { return n.registers[slot(register)] }
