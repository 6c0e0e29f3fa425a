package trace

import (
	"slices"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Identify returns the proxy that the rules of some sides are for, for rules of
// which no more is known.
//
//	what           | is read from
//	Inbound        | TPROXY; REDIRECT of what comes in, or of what the proxy sends over lo
//	Outbound       | REDIRECT of what the pod sends; TPROXY of what comes in over lo alone
//	DNS            | REDIRECT of what goes to port 53
//	UID, GID       | owner matches of what is let off in OUTPUT; or of all but which is diverted
//	Transparent    | TPROXY; or nothing but a mark tells the proxy
//	OwnMark        | the mark that another replaces over lo in OUTPUT, where TPROXY takes both ways
//	Mark           | the mark that is let off beside TPROXY, or else the ip rule's; in nat, not the ip rule's
//
// What comes in by a named interface is a virtual machine's, and so outbound, if
// other connections come in as well.
//
// A number that no rule names is 0 for a port, and Istio's for UID and GID.
func Identify(sides []Side) Proxy {
	found := findings{}
	for i := range sides {
		for _, set := range sides[i].Sets {
			eachRule(set, found.add)
		}
		for _, rule := range sides[i].Routing.Rules {
			if rule.Mark != 0 {
				found.routed = append(found.routed, rule.Mark)
			}
		}
	}
	return found.proxy()
}

// findings are the numbers that rules name, in the rules' order: the first is taken.
type findings struct {
	tproxy, inbound, outbound, dns []uint16
	tproxyLoopback                 []uint16 // of what comes in over lo
	tproxyMarks                    []uint32 // that TPROXY sets
	ownMarks                       []uint32 // changed over lo
	byInterface                    []uint16 // of what comes in by a named one
	uids, gids                     []uint32 // let off
	divertedUIDs, divertedGIDs     []uint32 // of all others' packets
	divertedMarks                  []uint32
	mangleMarks, natMarks, routed  []uint32
}

func (f *findings) proxy() Proxy {
	natMarks := slices.DeleteFunc(slices.Concat(f.divertedMarks, f.natMarks), func(mark uint32) bool {
		return slices.Contains(f.routed, mark)
	})
	turned := slices.DeleteFunc(f.tproxyLoopback, func(port uint16) bool { return slices.Contains(f.tproxy, port) })
	proxy := Proxy{
		UID:     first(f.uids, f.divertedUIDs, []uint32{interception.DefaultProxyUID}),
		GID:     first(f.gids, f.divertedGIDs, []uint32{interception.DefaultProxyGID}),
		Inbound: first(f.tproxy, f.inbound, f.byInterface), Outbound: first(f.outbound, turned), DNS: first(f.dns),
	}
	switch {
	case len(f.tproxy)+len(turned) > 0:
		proxy.Transparent, proxy.Mark = true, first(f.mangleMarks, f.routed)
		if len(turned) > 0 { // the ip rules are for the hop, and for what is turned round
			hops := slices.DeleteFunc(f.routed, func(mark uint32) bool { return slices.Contains(f.tproxyMarks, mark) })
			proxy.Mark, proxy.OwnMark = first(hops), first(f.ownMarks)
		}
	case len(f.uids)+len(f.gids)+len(f.divertedUIDs)+len(f.divertedGIDs) == 0 && len(natMarks) > 0:
		proxy.Transparent, proxy.Mark, proxy.MarkAll = true, natMarks[0], true
	}
	return proxy
}

func first[T comparable](lists ...[]T) T {
	for _, list := range lists {
		if len(list) > 0 {
			return list[0]
		}
	}
	var none T
	return none
}

// reached is a rule as packets of a hook come to it.
type reached struct {
	table, hook string
	matches     []ruleset.Match // of the rule, and of the jumps that lead to it
	target      ruleset.Target
}

// add takes what one rule says.
func (f *findings) add(r reached) {
	switch target := r.target.(type) {
	case ruleset.TProxy:
		f.addTProxy(r, target)
	case ruleset.Redirect:
		switch {
		case r.has(isDNS):
			f.dns = append(f.dns, target.Port)
		case r.has(isInterface):
			f.byInterface = append(f.byInterface, target.Port)
		case r.has(isOverLoopback) || r.hook == "PREROUTING":
			f.inbound = append(f.inbound, target.Port)
		default:
			f.outbound = append(f.outbound, target.Port)
			f.addDiverted(r.matches)
		}
	case ruleset.SetMark:
		f.addReplaced(r)
	case ruleset.Verdict:
		if target != ruleset.Drop {
			f.addLetOff(r)
		}
	}
}

func (f *findings) addTProxy(r reached, target ruleset.TProxy) {
	f.tproxyMarks = append(f.tproxyMarks, target.Mark)
	if r.has(isFromLoopback) {
		f.tproxyLoopback = append(f.tproxyLoopback, target.Port)
	} else {
		f.tproxy = append(f.tproxy, target.Port)
	}
}

// addReplaced takes the marks that a rule replaces over lo.
func (f *findings) addReplaced(r reached) {
	if r.hook != "OUTPUT" || !r.has(isOverLoopback) {
		return
	}
	for _, m := range r.matches {
		if own, is := m.(ruleset.Mark); is && own.Value != 0 && !own.Not && !own.Connection {
			f.ownMarks = append(f.ownMarks, own.Value)
		}
	}
}

func (r reached) has(is func(ruleset.Match) bool) bool { return slices.ContainsFunc(r.matches, is) }

func isDNS(m ruleset.Match) bool {
	ports, ok := m.(ruleset.Ports)
	return ok && !ports.Source && !ports.Not && len(ports.Ranges) == 1 &&
		ports.Ranges[0] == interception.PortRange{First: dnsPort, Last: dnsPort}
}

func isInterface(m ruleset.Match) bool {
	in, ok := m.(ruleset.InInterface)
	return ok && !in.Not
}

func isFromLoopback(m ruleset.Match) bool {
	in, ok := m.(ruleset.InInterface)
	return ok && in.Name == "lo" && !in.Not
}

func isOverLoopback(m ruleset.Match) bool {
	out, ok := m.(ruleset.OutInterface)
	return ok && out.Name == "lo" && !out.Not
}

// addLetOff takes whom a rule lets off.
func (f *findings) addLetOff(r reached) {
	for _, m := range r.matches {
		switch m := m.(type) {
		case ruleset.Owner:
			if r.hook != "OUTPUT" || m.Not || m.First != m.Last {
				continue
			}
			if m.Group {
				f.gids = append(f.gids, m.First)
			} else {
				f.uids = append(f.uids, m.First)
			}
		case ruleset.Mark:
			switch {
			case m.Not || m.Connection || m.Value == 0:
			case r.table == "mangle":
				f.mangleMarks = append(f.mangleMarks, m.Value)
			case r.table == "nat":
				f.natMarks = append(f.natMarks, m.Value)
			}
		}
	}
}

// addDiverted takes whose packets a rule leaves alone that diverts all others.
func (f *findings) addDiverted(matches []ruleset.Match) {
	for _, m := range matches {
		switch m := m.(type) {
		case ruleset.Owner:
			switch {
			case !m.Not || m.First != m.Last:
			case m.Group:
				f.divertedGIDs = append(f.divertedGIDs, m.First)
			default:
				f.divertedUIDs = append(f.divertedUIDs, m.First)
			}
		case ruleset.Mark:
			if m.Not && !m.Connection && m.Value != 0 {
				f.divertedMarks = append(f.divertedMarks, m.Value)
			}
		}
	}
}

// eachRule calls do for each rule of PREROUTING and then of OUTPUT, in the order in
// which packets come to them, with the conditions of the jumps before it. A chain
// that several rules jump to is gone through for each.
func eachRule(set ruleset.RuleSet, do func(reached)) {
	const maxDepth = 16 // that nf_tables allows
	var through func(table *ruleset.Table, chain ruleset.Chain, hook string, matches []ruleset.Match, depth int)
	left := 1 << 16 // rules, so that no set takes long
	chains := map[*ruleset.Table]map[string]ruleset.Chain{}
	for i := range set.Tables {
		table := &set.Tables[i]
		chains[table] = make(map[string]ruleset.Chain, len(table.Chains))
		for _, chain := range table.Chains {
			chains[table][chain.Name] = chain
		}
	}
	through = func(table *ruleset.Table, chain ruleset.Chain, hook string, matches []ruleset.Match, depth int) {
		for _, rule := range chain.Rules {
			if left--; left < 0 {
				return
			}
			all := slices.Concat(matches, rule.Matches)
			jump, jumps := rule.Target.(ruleset.Jump)
			if !jumps {
				do(reached{table.Name, hook, all, rule.Target})
				continue
			}
			if next, known := chains[table][jump.Chain]; known && depth < maxDepth {
				through(table, next, hook, all, depth+1)
			}
		}
	}
	for _, hook := range []string{"PREROUTING", "OUTPUT"} {
		for i := range set.Tables {
			for _, chain := range set.Tables[i].Chains {
				if chain.Base != nil && chain.Base.Hook == hook || chain.Base == nil && chain.Name == hook {
					through(&set.Tables[i], chain, hook, nil, 0)
				}
			}
		}
	}
}
