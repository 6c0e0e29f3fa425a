package ruleset

import (
	"net/netip"
	"slices"
)

// way is how a packet gets to one rule: the conditions of that rule and of
// those that lead to its chain.
type way struct {
	hook    string
	matches []Match
	opaque  []*Rule // of these rules, those with a match that is not understood
	rule    *Rule
	reason  string    // of ours: the chains and comments on the way
	sorted  [][]Match // by the field that they ask for; see asked
}

// asked are the conditions of the way that ask for a field.
func (w *way) asked(f int) []Match {
	if w.sorted == nil {
		w.sorted = make([][]Match, len(fields))
		for _, m := range w.matches {
			for i := range fields {
				if fields[i].of(m) {
					w.sorted[i] = append(w.sorted[i], m)
				}
			}
		}
	}
	return w.sorted[f]
}

// maxWays bounds the ways through one rule set.
const maxWays = 1 << 13

// waysOf returns the ways to the rules of a set that can change where a packet
// goes: to ours, one for each reason that a chain has; or to those of others,
// and for each of them also the way past it.
func waysOf(rs RuleSet, ours bool) []way {
	f := &wayFinder{ours: ours, party: rs.Party, reasons: map[string]bool{}}
	stack := NewStack(Routing{}, rs)
	for _, hook := range builtinOrder {
		for i := range stack.hooks[hook] {
			b := &stack.hooks[hook][i]
			f.through(b, b.chain, way{hook: hook}, 0)
		}
	}
	return f.ways
}

type wayFinder struct {
	ours    bool
	party   string
	reasons map[string]bool
	ways    []way
}

// through goes through a chain; lead is the way to it.
func (f *wayFinder) through(b *base, c *Chain, lead way, depth int) {
	for i := range c.Rules {
		r := &c.Rules[i]
		owned := f.party == "" && (ownedChain(c.Name) || r.Owned())
		if r.passive() || owned != f.ours || len(f.ways) >= maxWays {
			continue
		}
		here := lead.to(c, r)
		jump, leads := r.jump()
		next := b.chains[jump.Chain]
		if leads && next != nil && depth < maxDepth {
			f.through(b, next, here, depth+1)
		} else {
			f.keep(here)
		}
		if past, known := opposite(r); known && !f.ours && (!leads || jump.Goto) {
			f.ways = append(f.ways, lead.with(past))
			if r.ends() {
				lead = lead.with(past)
			}
		}
	}
}

// keep notes a way, of ours one for each reason.
func (f *wayFinder) keep(w way) {
	if f.ours && f.reasons[w.reason] {
		return
	}
	f.reasons[w.reason] = true
	f.ways = append(f.ways, w)
}

// to goes on to a rule of a chain.
func (w way) to(c *Chain, r *Rule) way {
	here := w.with(r.Matches...)
	here.rule, here.reason = r, w.reason+"\n"+c.Name+" "+r.Comment
	if r.opaque() {
		here.opaque = append(slices.Clone(here.opaque), r)
	}
	return here
}

func (w way) with(matches ...Match) way {
	w.sorted = nil
	w.matches = slices.Concat(w.matches, matches)
	return w
}

// namesPort reports whether the way is only for ports among which this one is.
func (w way) namesPort(port uint16) bool {
	return slices.ContainsFunc(w.matches, func(m Match) bool {
		p, is := m.(Ports)
		return is && !p.Not && p.Ranges.Contains(port) && (len(p.Ranges) > 1 || p.Ranges[0].First > 0)
	})
}

// names reports whether the way is only for addresses of a range that has this
// one in it.
func (w way) names(addr netip.Addr) bool {
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

// ends reports whether what meets the rule does not go on in its chain.
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
// opposite of its match, or of the one that is negated already, since a packet
// of ours seldom meets the others.
func opposite(r *Rule) (past Match, known bool) {
	for _, m := range r.Matches {
		if other, negated := inverse(m); negated || len(r.Matches) == 1 {
			past = other
		}
	}
	return past, past != nil
}

// inverse returns the match that takes what this one does not, nil where there
// is none, and whether this one is a negation.
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

// maxSetters bounds the rules that set a mark which one rule is tried with.
const maxSetters = 8

// pairMarks adds, for a rule that looks for a mark, the ways on which another
// rule has set it.
func pairMarks(ways []way) []way {
	all := ways
	for _, w := range ways {
		i := slices.IndexFunc(w.matches, func(m Match) bool {
			mark, is := m.(Mark)
			return is && !mark.Not
		})
		if i < 0 {
			continue
		}
		looked, rest := w.matches[i].(Mark), slices.Delete(slices.Clone(w.matches), i, i+1)
		setters := 0
		for _, s := range ways {
			if setters == maxSetters {
				break
			}
			if s.rule == nil || !sets(s.rule.Target, looked) {
				continue
			}
			setters++
			all = append(all, way{hook: w.hook, matches: slices.Concat(s.matches, rest),
				opaque: slices.Concat(s.opaque, w.opaque), rule: w.rule})
		}
	}
	return all
}

// sets reports whether a target gives a packet without a mark one that is
// looked for. What copies a mark may.
func sets(t Target, looked Mark) bool {
	switch t := t.(type) {
	case SetMark:
		return t.Value&looked.Mask == looked.Value && (t.Connection == looked.Connection || looked.Connection)
	case TProxy:
		return !looked.Connection && t.Mark&looked.Mask == looked.Value
	case Sequence:
		return slices.ContainsFunc(t, func(one Target) bool { return sets(one, looked) })
	}
	return false
}
