package dump

import (
	"slices"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// ProxyOf returns the proxy that rules are for, as the rules show it: the ports that
// they send connections to, whose connections they leave alone, and the mark that
// they route by. What they do not show is as Istio and Shunt have it.
func ProxyOf(sides []trace.Side) trace.Proxy {
	f := finder{}
	for _, side := range sides {
		for i := range side.Sets {
			f.set(&side.Sets[i])
		}
	}
	first := func(is func(d diversion) bool) (diversion, bool) {
		i := slices.IndexFunc(f.found, is)
		if i < 0 {
			return diversion{}, false
		}
		return f.found[i], true
	}
	// What comes in by a virtual machine's interface is what goes out of the pod.
	in, found := first(func(d diversion) bool { return d.hook == "PREROUTING" && !d.dns && !d.oneLink })
	if !found { // the proxy calls its own pod
		in, _ = first(func(d diversion) bool { return d.hook == "OUTPUT" && !d.dns && d.oneLink })
	}
	f.proxy.Inbound, f.proxy.Transparent, f.proxyMark = in.port, in.transparent, in.mark
	dns, _ := first(func(d diversion) bool { return d.dns })
	f.proxy.DNS = dns.port
	out, found := first(func(d diversion) bool { return d.hook == "OUTPUT" && !d.dns && !d.oneLink && d.port != in.port })
	if !found { // both directions have one port, as in Istio's system of 2017
		out, _ = first(func(d diversion) bool { return d.hook == "OUTPUT" && !d.dns && !d.oneLink })
	}
	f.proxy.Outbound = out.port
	f.identify(sides)
	return f.proxy
}

// finder looks for the proxy in rules.
type finder struct {
	proxy    trace.Proxy
	found    []diversion
	uid, gid *uint32
	marks    []uint32 // of connections that are left alone

	proxyMark uint32 // that TPROXY gives what it sends to the proxy
}

// diversion is a rule that sends connections to a port of the pod.
type diversion struct {
	hook             string
	port             uint16
	mark             uint32
	dns, transparent bool
	oneLink          bool // only what goes by one interface, such as lo
}

// identify sets whose connections are the proxy's.
func (f *finder) identify(sides []trace.Side) {
	f.proxy.UID, f.proxy.GID = interception.DefaultProxyUID, interception.DefaultProxyGID
	switch {
	case f.uid != nil && f.gid != nil:
		f.proxy.UID, f.proxy.GID = *f.uid, *f.gid
	case f.uid != nil:
		f.proxy.UID, f.proxy.GID = *f.uid, *f.uid
	case f.gid != nil:
		f.proxy.UID, f.proxy.GID = *f.gid, *f.gid
	}
	var routed []uint32
	for _, side := range sides {
		for _, rule := range side.Routing.Rules {
			if rule.Mark != 0 {
				routed = append(routed, rule.Mark)
			}
		}
	}
	byMark := slices.IndexFunc(f.marks, func(mark uint32) bool { return !slices.Contains(routed, mark) })
	switch {
	case f.uid == nil && f.gid == nil && byMark >= 0:
		f.proxy.Mark, f.proxy.MarkAll, f.proxy.Transparent = f.marks[byMark], true, true
	case f.proxy.Transparent && len(routed) > 0:
		f.proxy.Mark = routed[0]
	case f.proxy.Transparent:
		f.proxy.Mark = f.proxyMark
	}
}

// set goes through the chains of a rule set that the kernel calls, and those that
// they jump to. It visits each chain once for each hook.
func (f *finder) set(set *ruleset.RuleSet) {
	for i := range set.Tables {
		table := &set.Tables[i]
		chains := make(map[string]*ruleset.Chain, len(table.Chains))
		for k := range table.Chains {
			chains[table.Chains[k].Name] = &table.Chains[k]
		}
		seen := map[visit]bool{}
		for k := range table.Chains {
			base := &table.Chains[k]
			hook := base.Name
			if base.Base != nil {
				hook = base.Base.Hook
			} else if !base.Builtin() {
				continue
			}
			if hook == "PREROUTING" || hook == "OUTPUT" {
				f.chain(chains, base, visit{hook: hook}, seen)
			}
		}
	}
}

// visit is how the search gets to a chain.
type visit struct {
	chain string
	hook  string
	dns   bool // only DNS gets there
	link  bool // only what goes by one interface
	depth int
}

// maxDepth bounds the search. The kernel's nf_tables allow 16 jumps.
const maxDepth = 32

func (f *finder) chain(chains map[string]*ruleset.Chain, chain *ruleset.Chain, at visit, seen map[visit]bool) {
	depth := at.depth
	at.chain, at.depth = chain.Name, 0
	if seen[at] || depth > maxDepth {
		return
	}
	seen[at] = true
	hook := at.hook
	for _, rule := range chain.Rules {
		asked := conditions(rule)
		forDNS, oneLink := at.dns || asked.dns, at.link || asked.oneLink
		switch target := rule.Target.(type) {
		case ruleset.Jump:
			if next := chains[target.Chain]; next != nil {
				f.chain(chains, next, visit{hook: hook, dns: forDNS, link: oneLink, depth: depth + 1}, seen)
			}
		case ruleset.Redirect:
			f.found = append(f.found, diversion{hook: hook, port: target.Port, dns: forDNS, oneLink: oneLink})
			f.exempt(asked, hook, true)
		case ruleset.TProxy:
			f.found = append(f.found, diversion{hook: hook, port: target.Port, mark: target.Mark, transparent: true, oneLink: oneLink})
		case ruleset.Verdict:
			if target != ruleset.Drop {
				f.exempt(asked, hook, false)
			}
		}
	}
}

// exempt notes whose connections a rule of OUTPUT leaves alone: those that it names,
// or with negated those that it excepts.
func (f *finder) exempt(asked condition, hook string, negated bool) {
	if hook != "OUTPUT" || asked.dns {
		return
	}
	if owner := asked.owner; owner != nil && owner.Not == negated && owner.First == owner.Last {
		id := owner.First
		if owner.Group && f.gid == nil {
			f.gid = &id
		} else if !owner.Group && f.uid == nil {
			f.uid = &id
		}
	}
	if mark := asked.mark; mark != nil && !mark.Connection && mark.Not == negated && asked.owner == nil && !slices.Contains(f.marks, mark.Value) {
		f.marks = append(f.marks, mark.Value)
	}
}

// condition is what a rule asks for that tells the proxy.
type condition struct {
	owner *ruleset.Owner
	mark  *ruleset.Mark

	dns, oneLink bool
}

func conditions(rule ruleset.Rule) condition {
	var asked condition
	for _, m := range rule.Matches {
		switch m := m.(type) {
		case ruleset.Owner:
			asked.owner = &m
		case ruleset.Mark:
			asked.mark = &m
		case ruleset.OutInterface:
			asked.oneLink = asked.oneLink || !m.Not
		case ruleset.InInterface:
			asked.oneLink = asked.oneLink || !m.Not
		case ruleset.Ports:
			asked.dns = asked.dns || !m.Source && !m.Not && len(m.Ranges) == 1 && m.Ranges[0].First == 53 && m.Ranges[0].Last == 53
		}
	}
	return asked
}
