package kernel

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// nativeRule translates one rule of nf_tables into iptables' rules. There is more
// than one if it looks for several values, or acts before its last condition.
type nativeRule struct {
	reader       *nativeReader
	registers    map[uint32]operand
	alternatives [][]ruleset.Match // any of them is enough
	targets      ruleset.Sequence
	neverMatches bool // no packet of the family meets it
	rules        []ruleset.Rule
}

// maxAlternatives bounds the rules that one rule with a set becomes.
const maxAlternatives = 256

func (r *nativeReader) rules(expressions [][]byte) ([]ruleset.Rule, error) {
	rule := &nativeRule{reader: r, registers: map[uint32]operand{}, alternatives: [][]ruleset.Match{nil}}
	for _, expression := range expressions {
		attrs := attributes(expression)
		if err := rule.addExpression(text(attrs[unix.NFTA_EXPR_NAME]), attributes(attrs[unix.NFTA_EXPR_DATA])); err != nil {
			return nil, err
		}
		if rule.neverMatches {
			return rule.rules, nil
		}
	}
	rule.finish()
	return rule.rules, nil
}

// finish makes rules of what has been collected.
func (n *nativeRule) finish() {
	var target ruleset.Target
	switch len(n.targets) {
	case 0:
		return
	case 1:
		target = n.targets[0]
	default:
		target = slices.Clone(n.targets)
	}
	for _, matches := range n.alternatives {
		n.rules = append(n.rules, ruleset.Rule{Matches: matches, Target: target})
	}
	n.targets = nil
}

// addAlternatives adds conditions, any of which is enough.
func (n *nativeRule) addAlternatives(alternatives ...[]ruleset.Match) {
	n.finish()
	if len(alternatives)*len(n.alternatives) > maxAlternatives && !n.reader.own {
		alternatives = [][]ruleset.Match{{opaque("set")}}
	}
	var ways [][]ruleset.Match
	for _, way := range n.alternatives {
		for _, more := range alternatives {
			ways = append(ways, slices.Concat(way, more))
		}
	}
	n.alternatives = ways
	n.neverMatches = len(ways) == 0
}

func (n *nativeRule) addOpaque(what string) { n.addAlternatives([]ruleset.Match{opaque(what)}) }

func opaque(what string) ruleset.Match { return ruleset.OpaqueMatch{Args: []string{"nft:" + what}} }

// addTarget adds what the rule does. TPROXY ends an iptables rule and therefore
// stays last; its rule sets what follows it as well.
func (n *nativeRule) addTarget(t ruleset.Target) {
	place := len(n.targets)
	if place > 0 {
		_, proxied := n.targets[place-1].(ruleset.TProxy)
		if verdict, ends := t.(ruleset.Verdict); proxied && ends && verdict != ruleset.Drop {
			return
		}
		if proxied {
			place--
		}
	}
	n.targets = slices.Insert(n.targets, place, t)
}

func unknownTarget(what string) ruleset.Target {
	return ruleset.OpaqueTarget{Args: []string{"-j", "nft:" + what}}
}

// slot returns the place of a register, in words of four bytes. nf_tables counts
// registers in two ways.
func slot(register []byte) uint32 {
	r := bigEndian(register)
	if r <= unix.NFT_REG_4 {
		return r * 4
	}
	return r - 4
}

// Attributes and values that x/sys/unix does not name
// (linux/netfilter/nf_tables.h).
const (
	bitwiseOperation  = 6
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
			n.addTarget(target(n, attrs))
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
		"notrack": always(ruleset.NoTrack{}), "reject": does((*nativeRule).reject),
		"fib":      (*nativeRule).fib,
		"queue":    always(ruleset.OpaqueTarget{Args: []string{"-j", "NFQUEUE"}}),
		"synproxy": always(ruleset.OpaqueTarget{Args: []string{"-j", "SYNPROXY"}}),
		"fwd":      always(unknownTarget("fwd")),
		// These do not change where a packet goes.
		"counter": passive, "log": passive, "last": passive, "dup": passive, "masq": passive, "secmark": passive, "flow_offload": passive,
	}
}

// addExpression adds one expression. An unknown one that loads a register makes the
// register unknown. Any other, such as a limit or a quota, becomes an opaque match.
func (n *nativeRule) addExpression(name string, attrs attributeMap) error {
	if known := expressions[name]; known != nil {
		return known(n, attrs)
	}
	if register, loads := destinations[name]; loads {
		n.load(attrs[register], operand{})
		return nil
	}
	n.addOpaque(name)
	return nil
}

// destinations are the attributes that name the register to load, of expressions
// that are not understood.
var destinations = map[string]uint16{"socket": 2, "rt": 1, "numgen": 1, "hash": 2, "osf": 1, "tunnel": 2, "xfrm": 1}

func (n *nativeRule) load(register []byte, o operand) { n.registers[slot(register)] = o }

func (n *nativeRule) loaded(register []byte) operand { return n.registers[slot(register)] }
