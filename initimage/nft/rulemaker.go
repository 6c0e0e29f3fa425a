package nft

import (
	"math"
	"net/netip"
	"slices"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Translator turns rules of nf_tables into iptables' rules: those of one table, as
// packets of one family meet them.
type Translator struct {
	Family ruleset.Family
	Links  map[uint32]string // names of interfaces, by index
	Own    bool              // Shunt's table: a set of any size is read
}

// RuleMaker translates one rule, whose parts it is given in their order. It becomes
// several of iptables' rules if it looks for several values, or acts before its last
// condition.
type RuleMaker struct {
	// Never means that no packet of the family meets what has been added.
	Never bool
	// Packets are those that the rule has counted, if it counts any.
	Packets      *uint64
	of           Translator
	alternatives [][]ruleset.Match // any of them is enough
	targets      ruleset.Sequence
	rules        []ruleset.Rule
	from         *bound // of a range whose end may follow
}

// bound is the first value of a range that a property has to be in.
type bound struct {
	of    Operand
	first []byte
}

// maxAlternatives bounds the rules that one rule with a set becomes.
const maxAlternatives = 256

// Rule begins a rule.
func (r Translator) Rule() *RuleMaker { return &RuleMaker{of: r, alternatives: [][]ruleset.Match{nil}} }

// Rules ends the rule. What follows a condition that no packet meets is left out.
func (n *RuleMaker) Rules() []ruleset.Rule {
	if !n.Never {
		n.settle()
		n.finish()
	}
	for i := range n.rules {
		n.rules[i].Packets = n.Packets
	}
	return n.rules
}

// settle adds a range that has no end.
func (n *RuleMaker) settle() {
	if from := n.from; from != nil {
		n.from = nil
		n.AddMembership(from.of, []Element{{First: from.first, Last: highest(from.first)}}, false)
	}
}

// finish makes rules of what has been collected.
func (n *RuleMaker) finish() {
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
func (n *RuleMaker) addAlternatives(alternatives ...[]ruleset.Match) {
	n.settle()
	n.finish()
	only := n.of.Own && (len(n.alternatives) == 1 || len(alternatives) == 1) // Shunt's rules have one set
	if len(alternatives)*len(n.alternatives) > maxAlternatives && !only {
		alternatives = [][]ruleset.Match{{opaque("set")}}
	}
	var ways [][]ruleset.Match
	for _, way := range n.alternatives {
		for _, more := range alternatives {
			ways = append(ways, slices.Concat(way, more))
		}
	}
	n.alternatives = ways
	n.Never = len(ways) == 0
}

// AddOpaque adds a condition that is not understood.
func (n *RuleMaker) AddOpaque(what string) { n.addAlternatives([]ruleset.Match{opaque(what)}) }

func opaque(what string) ruleset.Match { return ruleset.OpaqueMatch{Args: []string{"nft:" + what}} }

// AddTarget adds what the rule does. In Shunt's table a tproxy stands for TPROXY,
// which ends an iptables rule and therefore stays last; its rule sets what follows it
// as well.
func (n *RuleMaker) AddTarget(t ruleset.Target) {
	n.settle()
	place := len(n.targets)
	if place > 0 && n.of.Own {
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

// SourceTarget is the translation of a source address; not valid for one that the
// kernel chooses.
func SourceTarget(to netip.Addr) ruleset.Target {
	if !to.IsValid() {
		return ruleset.OpaqueTarget{Args: []string{"-j", "MASQUERADE"}}
	}
	return ruleset.OpaqueTarget{Args: []string{"-j", "SNAT", "--to-source", to.String()}}
}

// UnknownTarget is a target that is not understood.
func UnknownTarget(what string) ruleset.Target {
	return ruleset.OpaqueTarget{Args: []string{"-j", "nft:" + what}}
}

// SetMark adds a statement that sets the packet mark, or with connection the mark of
// its conntrack entry.
func (n *RuleMaker) SetMark(connection bool, to Operand) {
	mask, xor := to.bits()
	own, other, statement := PropertyMark, PropertyConnMark, "meta mark set"
	if connection {
		own, other, statement = PropertyConnMark, PropertyMark, "ct mark set"
	}
	switch {
	case to.Property == PropertyConstant:
		n.AddTarget(ruleset.SetMark{Connection: connection, Value: Native(to.Value), Mask: math.MaxUint32})
	case to.Property == own:
		n.AddTarget(ruleset.SetMark{Connection: connection, Value: xor, Mask: ^mask})
	case to.Property == other && xor == 0 && connection:
		n.AddTarget(ruleset.SaveMark{Masks: ruleset.Masks{SparePacket: ^mask}})
	case to.Property == other && xor == 0:
		n.AddTarget(ruleset.RestoreMark{Masks: ruleset.Masks{SpareConnection: ^mask}})
	default:
		n.AddTarget(UnknownTarget(statement))
	}
}

// AddVerdicts adds a verdict map: each element with its verdict is a rule.
func (n *RuleMaker) AddVerdicts(of Operand, elements []Element) {
	n.settle()
	n.finish()
	for _, e := range elements[:min(len(elements), maxAlternatives)] {
		one := &RuleMaker{of: n.of, alternatives: n.alternatives}
		one.AddMembership(of, []Element{e}, false)
		if one.Never || e.Verdict == nil {
			continue
		}
		one.AddTarget(e.Verdict)
		one.finish()
		n.rules = append(n.rules, one.rules...)
	}
}
