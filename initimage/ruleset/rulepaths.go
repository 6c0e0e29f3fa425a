package ruleset

import (
	"net/netip"
	"slices"
)

// rulePath is how a packet gets to one rule: the conditions of that rule, and of
// those that lead to its chain.
type rulePath struct {
	hook    string
	matches []Match
	opaque  []*Rule // of these rules, those with a match that is not understood
	rule    *Rule
	reason  string    // of ours: the chains and comments on the path
	sorted  [][]Match // by the field that they ask for; see asked
}

// asked returns the conditions of the path that ask for a field.
func (w *rulePath) asked(field int) []Match {
	if w.sorted == nil {
		w.sorted = make([][]Match, len(fields))
		for _, m := range w.matches {
			for i := range fields {
				if fields[i].asksFor(m) {
					w.sorted[i] = append(w.sorted[i], m)
				}
			}
		}
	}
	return w.sorted[field]
}

// maxRulePaths bounds the paths through one rule set.
const maxRulePaths = 1 << 13

// rulePathsOf returns the paths to the rules of a set that can change where a
// packet goes. Of ours it returns one for each reason that a chain has; of others
// also, for each rule, the path past it.
func rulePathsOf(rs RuleSet, ours bool) []rulePath {
	f := &rulePathFinder{ours: ours, party: rs.Party, reasons: map[string]bool{}}
	stack := NewStack(Routing{}, rs)
	for _, hook := range builtinOrder {
		for i := range stack.hooks[hook] {
			b := &stack.hooks[hook][i]
			f.walkChain(b, b.chain, rulePath{hook: hook}, 0)
		}
	}
	return f.paths
}

type rulePathFinder struct {
	ours    bool
	party   string
	reasons map[string]bool
	paths   []rulePath
}

// walkChain goes through a chain; lead is the path to it.
func (f *rulePathFinder) walkChain(b *base, chain *Chain, lead rulePath, depth int) {
	for i := range chain.Rules {
		rule := &chain.Rules[i]
		owned := f.party == "" && (ownedChain(chain.Name) || rule.Owned())
		if rule.passive() || owned != f.ours || len(f.paths) >= maxRulePaths {
			continue
		}
		here := lead.toRule(chain, rule)
		jump, leads := rule.jump()
		next := b.chains[jump.Chain]
		if leads && next != nil && depth < maxDepth {
			f.walkChain(b, next, here, depth+1)
		} else {
			f.add(here)
		}
		if past, known := opposite(rule); known && !f.ours && (!leads || jump.Goto) {
			f.paths = append(f.paths, lead.with(past))
			if rule.ends() {
				lead = lead.with(past)
			}
		}
	}
}

// add adds a path, of ours one for each reason.
func (f *rulePathFinder) add(w rulePath) {
	if f.ours && f.reasons[w.reason] {
		return
	}
	f.reasons[w.reason] = true
	f.paths = append(f.paths, w)
}

// toRule returns the path that goes on to a rule of a chain.
func (w rulePath) toRule(c *Chain, r *Rule) rulePath {
	here := w.with(r.Matches...)
	here.rule, here.reason = r, w.reason+"\n"+c.Name+" "+r.Comment
	if r.opaque() {
		here.opaque = append(slices.Clone(here.opaque), r)
	}
	return here
}

func (w rulePath) with(matches ...Match) rulePath {
	w.sorted = nil
	w.matches = slices.Concat(w.matches, matches)
	return w
}

// namesPort reports whether the path is only for ports, and this is one of them.
func (w rulePath) namesPort(port uint16) bool {
	return slices.ContainsFunc(w.matches, func(m Match) bool {
		p, is := m.(Ports)
		return is && !p.Not && p.Ranges.Contains(port) && (len(p.Ranges) > 1 || p.Ranges[0].First > 0)
	})
}

// namesAddress reports whether the path is only for addresses, and this is one of
// them.
func (w rulePath) namesAddress(addr netip.Addr) bool {
	for _, m := range w.matches {
		switch m := m.(type) {
		case Destination:
			if !m.Not && m.Prefix.Bits() > 0 && m.Prefix.Contains(addr) {
				return true
			}
		case Source:
			if !m.Not && m.Prefix.Bits() > 0 && m.Prefix.Contains(addr) {
				return true
			}
		}
	}
	return false
}

// ends reports whether a packet that meets the rule leaves its chain.
func (r Rule) ends() bool {
	target := r.Target
	if all, ok := target.(Sequence); ok && len(all) > 0 {
		target = all[len(all)-1]
	}
	switch t := target.(type) {
	case Verdict, Reject, Redirect, DNAT, TProxy:
		return true
	case Jump:
		return t.Goto
	}
	return false
}

// opposite returns the condition that keeps a packet from meeting the rule: the
// opposite of its only match, or of the one that is negated already, since our
// packets seldom meet the others.
func opposite(r *Rule) (past Match, known bool) {
	for _, m := range r.Matches {
		if other, negated := inverse(m); negated || len(r.Matches) == 1 {
			past = other
		}
	}
	return past, past != nil
}

// inverse returns the match that accepts what this one does not, or nil, and
// whether this one is a negation.
func inverse(m Match) (other Match, negated bool) {
	switch m := m.(type) {
	case Source:
		m.Not = !m.Not
		return m, !m.Not
	case Destination:
		m.Not = !m.Not
		return m, !m.Not
	case InInterface:
		m.Not = !m.Not
		return m, !m.Not
	case OutInterface:
		m.Not = !m.Not
		return m, !m.Not
	case Protocol:
		m.Not = !m.Not
		return m, !m.Not
	case Ports:
		m.Not = !m.Not
		return m, !m.Not
	case Owner:
		m.Not = !m.Not
		return m, !m.Not
	case Conntrack:
		m.Not = !m.Not
		return m, !m.Not
	case AddressType:
		m.Not = !m.Not
		return m, !m.Not
	}
	return nil, false
}

// maxSetters bounds how many rules that set a mark are tried with one that matches
// it.
const maxSetters = 8

// pairMarks adds, for a rule that matches a mark, the paths on which another rule
// has set it.
func pairMarks(paths []rulePath) []rulePath {
	all := paths
	for _, path := range paths {
		i := slices.IndexFunc(path.matches, func(m Match) bool {
			mark, is := m.(Mark)
			return is && !mark.Not
		})
		if i < 0 {
			continue
		}
		looked, rest := path.matches[i].(Mark), slices.Delete(slices.Clone(path.matches), i, i+1)
		setters := 0
		for _, setter := range paths {
			if setters == maxSetters {
				break
			}
			if setter.rule == nil || !canSet(setter.rule.Target, looked) {
				continue
			}
			setters++
			all = append(all, rulePath{hook: path.hook, matches: slices.Concat(setter.matches, rest),
				opaque: slices.Concat(setter.opaque, path.opaque), rule: path.rule})
		}
	}
	return all
}

// canSet reports whether a target gives an unmarked packet the mark that is
// matched. A target that copies a mark may.
func canSet(t Target, looked Mark) bool {
	switch t := t.(type) {
	case SetMark:
		return t.Value&looked.Mask == looked.Value && (t.Connection == looked.Connection || looked.Connection)
	case TProxy:
		return !looked.Connection && t.Mark&looked.Mask == looked.Value
	case Sequence:
		return slices.ContainsFunc(t, func(one Target) bool { return canSet(one, looked) })
	}
	return false
}
