package kernel

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// nativeRule turns one rule of nf_tables into rules of iptables' kind: more
// than one where it looks for several values, or does something before it has
// looked at all.
type nativeRule struct {
	reader    *nativeReader
	registers map[uint32]operand
	ways      [][]ruleset.Match // any of which is enough
	does      ruleset.Sequence
	never     bool // no packet of the family meets it
	rules     []ruleset.Rule
}

// maxAlternatives bounds the rules that one rule with a set becomes.
const maxAlternatives = 256

func (r *nativeReader) rules(expressions [][]byte) ([]ruleset.Rule, error) {
	n := &nativeRule{reader: r, registers: map[uint32]operand{}, ways: [][]ruleset.Match{nil}}
	for _, expression := range expressions {
		attrs := attributes(expression)
		if err := n.take(text(attrs[unix.NFTA_EXPR_NAME]), attributes(attrs[unix.NFTA_EXPR_DATA])); err != nil {
			return nil, err
		}
		if n.never {
			return n.rules, nil
		}
	}
	n.finish()
	return n.rules, nil
}

// finish makes rules of what has been collected.
func (n *nativeRule) finish() {
	var target ruleset.Target
	switch len(n.does) {
	case 0:
		return
	case 1:
		target = n.does[0]
	default:
		target = slices.Clone(n.does)
	}
	for _, matches := range n.ways {
		n.rules = append(n.rules, ruleset.Rule{Matches: matches, Target: target})
	}
	n.does = nil
}

// where adds conditions, any of which is enough.
func (n *nativeRule) where(alternatives ...[]ruleset.Match) {
	n.finish()
	if len(alternatives)*len(n.ways) > maxAlternatives {
		alternatives = [][]ruleset.Match{{opaque("set")}}
	}
	var ways [][]ruleset.Match
	for _, way := range n.ways {
		for _, more := range alternatives {
			ways = append(ways, slices.Concat(way, more))
		}
	}
	n.ways = ways
	n.never = len(ways) == 0
}

func (n *nativeRule) unknown(what string) { n.where([]ruleset.Match{opaque(what)}) }

func opaque(what string) ruleset.Match { return ruleset.OpaqueMatch{Args: []string{"nft:" + what}} }

// do adds what the rule does. TPROXY, which ends a rule of iptables, stays the
// last: what is set behind it, it sets as well.
func (n *nativeRule) do(t ruleset.Target) {
	at := len(n.does)
	if at > 0 {
		_, proxied := n.does[at-1].(ruleset.TProxy)
		if verdict, ends := t.(ruleset.Verdict); proxied && ends && verdict != ruleset.Drop {
			return
		}
		if proxied {
			at--
		}
	}
	n.does = slices.Insert(n.does, at, t)
}

func unknownTarget(what string) ruleset.Target {
	return ruleset.OpaqueTarget{Args: []string{"-j", "nft:" + what}}
}

// slot is the place of a register, in words of four bytes: there are two ways
// to count them.
func slot(register []byte) uint32 {
	r := bigEndian(register)
	if r <= unix.NFT_REG_4 {
		return r * 4
	}
	return r - 4
}

// attributeMap is the attributes of an expression, by their type.
type attributeMap = map[uint16][]byte

// Attributes and values that x/sys/unix does not name (linux/netfilter/nf_tables.h).
const (
	bitwiseOperation  = 6
	tproxyAddress     = 2
	tproxyPort        = 3
	natDestination    = 1
	lookupFlags       = 5
	lookupFlagInverse = 1
	matchName         = 1
)

// expressions are those that are understood, by the kernel's name of them.
var expressions = understood()

func understood() map[string]func(n *nativeRule, attrs attributeMap) error {
	passive := func(*nativeRule, attributeMap) error { return nil }
	does := func(target func(n *nativeRule, attrs attributeMap) ruleset.Target) func(*nativeRule, attributeMap) error {
		return func(n *nativeRule, attrs attributeMap) error {
			n.do(target(n, attrs))
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
		"tproxy": does((*nativeRule).tproxy),
		"target": does(func(_ *nativeRule, attrs attributeMap) ruleset.Target {
			return ruleset.OpaqueTarget{Args: []string{"-j", text(attrs[matchName])}}
		}),
		"notrack": always(ruleset.NoTrack{}), "reject": always(ruleset.Reject{}),
		"queue":    always(ruleset.OpaqueTarget{Args: []string{"-j", "NFQUEUE"}}),
		"synproxy": always(ruleset.OpaqueTarget{Args: []string{"-j", "SYNPROXY"}}),
		"fwd":      always(unknownTarget("fwd")),
		// These change nothing about where a packet goes.
		"counter": passive, "log": passive, "last": passive, "dup": passive, "masq": passive, "secmark": passive, "flow_offload": passive,
	}
}

// take adds one expression. Of those that are not known, what loads a register
// makes it unknown; what else there is, limits, quotas and objects, lets some
// packets on and others not.
func (n *nativeRule) take(name string, attrs attributeMap) error {
	if known := expressions[name]; known != nil {
		return known(n, attrs)
	}
	if register, loads := destinations[name]; loads {
		n.load(attrs[register], operand{})
		return nil
	}
	n.unknown(name)
	return nil
}

// destinations are the attributes that name the register which an expression
// loads, of those that are not understood.
var destinations = map[string]uint16{"fib": 1, "socket": 2, "rt": 1, "numgen": 1, "hash": 2, "osf": 1, "tunnel": 2, "xfrm": 1}

func (n *nativeRule) load(register []byte, o operand) { n.registers[slot(register)] = o }

func (n *nativeRule) loaded(register []byte) operand { return n.registers[slot(register)] }
