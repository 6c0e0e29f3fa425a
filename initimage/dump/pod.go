package dump

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// Script prints all that Read reads, on one line for people to copy.
const Script = `for c in iptables-save ip6tables-save iptables-legacy-save ip6tables-legacy-save 'nft -j list ruleset' ` +
	`'ip rule' 'ip -6 rule' 'ip route show table all' 'ip addr' ` +
	`'sysctl -e net.ipv4.tcp_fwmark_accept net.ipv4.fwmark_reflect net.ipv6.fwmark_reflect'; ` +
	`do echo "# $c"; $c 2>/dev/null || echo "` + failed + `"; done`

// Read returns the pod that a dump is of. The notes say what was assumed because
// the dump does not say it. Its errors are Errors where they have a place.
func Read(name string, files []File) (pod trace.Pod, notes []string, err error) {
	all := &contents{localnet: map[string]bool{}, marks: map[string]bool{}, linkByName: map[string]int{}, asked: map[string]bool{}}
	for _, f := range files {
		if err := all.scan(f); err != nil {
			return trace.Pod{}, nil, err
		}
	}
	if len(all.saves)+len(all.rules)+len(all.routes)+len(all.links) == 0 && all.listing == nil && all.native == nil && len(all.asked) == 0 {
		return trace.Pod{}, nil, fmt.Errorf("%s: empty; %s", name, accepted)
	}
	a := assembly{contents: all, noted: map[string]bool{}}
	if err := a.settleSaves(); err != nil {
		return trace.Pod{}, nil, err
	}
	a.settleRules()
	pod.Name = name
	for _, family := range ruleset.Families {
		switch {
		case family == ruleset.IPv4, a.has(family) && (len(a.links) == 0 || a.hasAddress(family)):
			pod.Sides = append(pod.Sides, a.side(family))
		case a.has(family):
			a.note("IPv6: the pod has no address that others reach it by, so nothing is said of it")
		default:
			a.note("IPv6: nothing in the dump is of it, so nothing is said of it")
		}
	}
	pod.Proxy = trace.Identify(pod.Sides)
	a.noteListeners(pod.Proxy)
	return pod, a.notes, nil
}

// assembly puts the contents of a dump together.
type assembly struct {
	*contents
	policy map[ruleset.Family][]policyRule
	notes  []string
	noted  map[string]bool
}

// note says what was assumed, once.
func (a *assembly) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !a.noted[text] {
		a.noted[text] = true
		a.notes = append(a.notes, text)
	}
}

// settleSaves parses what iptables-save printed, once it is known of which family
// each output is.
func (a *assembly) settleSaves() error {
	var kept []save
	seen := map[string]bool{} // backends whose IPv4 rules have been read, in each file
	for _, s := range a.saves {
		of := s.file + " " + s.hint.backend
		family, sure := familyOf(s.text)
		if !sure {
			family, sure = s.hint.family, s.hint.family != 0
		}
		if !sure {
			if family = ruleset.IPv4; seen[of] {
				family = ruleset.IPv6
			}
			a.note("%s: taken for %s: nothing says which family these rules are of", s.place, family)
		}
		seen[of] = seen[of] || family == ruleset.IPv4
		s.decided = family
		var err error
		if s.rules, err = ruleset.Parse(family, s.text); err != nil {
			return s.wrap(err)
		}
		if kept, err = keep(kept, s); err != nil {
			return err
		}
	}
	a.saves = kept
	return nil
}

// keep adds an output, unless it is one of those that are kept already: the same
// program has two names.
func keep(kept []save, s save) ([]save, error) {
	for i, other := range kept {
		if other.decided != s.decided {
			continue
		}
		if other.rules.Equal(s.rules) {
			if other.hint.backend == "" {
				kept[i].hint.backend = s.hint.backend
			}
			return kept, nil
		}
		if other.hint.backend == s.hint.backend {
			return nil, s.wrap(fmt.Errorf("other %s rules than those of %s; accepted: one output of each program, of one pod",
				s.decided, other.place))
		}
	}
	return append(kept, s), nil
}

// familyOf returns the family of rules by the addresses in them.
func familyOf(text string) (ruleset.Family, bool) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "# ip -6 ") {
			return ruleset.IPv6, true
		}
		words := strings.Fields(line)
		for i, word := range words[:max(0, len(words)-1)] {
			value := words[i+1]
			switch word {
			case "-s", "-d", "--on-ip", "--src-range", "--dst-range":
				value, _, _ = strings.Cut(value, "-")
				if prefix, err := parsePrefix(value); err == nil {
					return map[bool]ruleset.Family{true: ruleset.IPv4, false: ruleset.IPv6}[prefix.Addr().Is4()], true
				}
			case "--reject-with":
				if strings.HasPrefix(value, "icmp6-") {
					return ruleset.IPv6, true
				}
				if strings.HasPrefix(value, "icmp-") {
					return ruleset.IPv4, true
				}
			}
		}
	}
	return 0, false
}

// settleRules decides of which family each output of ip rule is. That of IPv6 has no
// table default.
func (a *assembly) settleRules() {
	a.policy = map[ruleset.Family][]policyRule{}
	for _, block := range a.rules {
		family, sure := block.hint.family, block.hint.family != 0
		hasDefault := false
		for _, r := range block.rules {
			hasDefault = hasDefault || tableNumber(r.table) == tableDefault
			if r.source.IsValid() {
				family, sure = ruleset.IPv4, true
				if r.source.Addr().Is6() {
					family = ruleset.IPv6
				}
			}
		}
		switch {
		case hasDefault:
			family = ruleset.IPv4
		case !sure && a.policy[ruleset.IPv4] != nil:
			family = ruleset.IPv6
		case !sure:
			family = ruleset.IPv4
			a.note("%s: taken for IPv4: nothing says which family these rules are of", block.place)
		}
		a.policy[family] = append(a.policy[family], block.rules...)
	}
}

// has reports whether something of the dump is of a family other than IPv4.
func (a *assembly) has(family ruleset.Family) bool {
	asked := a.asked["ip6tables-save"] || a.asked["ip6tables-nft-save"] || a.asked["ip6tables-legacy-save"]
	saved := slices.ContainsFunc(a.saves, func(s save) bool { return s.decided == family })
	return asked || saved || a.listing != nil || a.native != nil || a.hasAddress(family)
}

// hasAddress reports whether others can reach the pod by an address of a family.
func (a *assembly) hasAddress(family ruleset.Family) bool {
	return slices.ContainsFunc(a.links, func(l link) bool {
		return !l.loopback && slices.ContainsFunc(l.addresses, func(p netip.Prefix) bool {
			return family.Of(p.Addr()) && !p.Addr().IsLinkLocalUnicast()
		})
	})
}

// side returns the pod's side of a family.
func (a *assembly) side(family ruleset.Family) trace.Side {
	side := trace.Side{Family: family}
	printed := map[string]bool{} // tables of nf_tables that iptables printed
	var saved []save
	for _, s := range a.saves {
		if s.decided != family {
			continue
		}
		saved = append(saved, s)
		if s.hint.backend == "legacy" {
			continue
		}
		for _, t := range s.rules.Tables {
			printed[t.Name] = true
		}
	}
	var own *ruleset.RuleSet
	native := ruleset.RuleSet{}
	if a.listing != nil {
		own, native = a.listing.sets(family, printed)
	}
	for i, set := range a.native {
		switch {
		case set.Family != family:
		case set.Party == "":
			own = &a.native[i]
		default:
			native = set
		}
	}
	ours := slices.IndexFunc(saved, func(s save) bool { return !s.rules.Owned().Empty() })
	if own != nil {
		side.Sets, ours = append(side.Sets, *own), len(saved)
	}
	if ours = max(ours, 0); ours < len(saved) { // without rules of Shunt, one set is as good as another
		side.Sets = append(side.Sets, saved[ours].rules)
	}
	for i, s := range saved {
		if i != ours && !s.rules.Empty() {
			s.rules.Party = strings.TrimSuffix("iptables-"+s.hint.backend, "-")
			side.Sets = append(side.Sets, s.rules)
		}
	}
	if !native.Empty() {
		side.Sets = append(side.Sets, native)
	}
	a.setHost(&side)
	a.setRouting(&side, saved)
	a.setUnread(&side, saved)
	return side
}

// setHost sets the addresses of the pod.
func (a *assembly) setHost(side *trace.Side) {
	host := &side.Host
	uplinks := map[string]bool{}
	for _, r := range a.routes {
		if r.all && r.table == tableMain && r.kind == "unicast" {
			uplinks[r.dev] = true
		}
	}
	for _, l := range a.links {
		if l.loopback {
			continue
		}
		own := l.own()
		host.Interfaces = append(host.Interfaces, ruleset.Interface{Name: l.name, Addresses: own})
		if host.Uplink == "" || uplinks[l.name] {
			host.Uplink = l.name
			host.Addresses = append(slices.Clone(own), host.Addresses...)
		} else {
			host.Addresses = append(host.Addresses, own...)
		}
	}
	if len(a.links) == 0 {
		a.assumeHost(side, uplinks)
	}
	host.NoLocalnet = len(a.localnet) > 0
	for _, on := range a.localnet {
		host.NoLocalnet = host.NoLocalnet && !on
	}
}

// own returns the addresses that others can reach the interface by.
func (l link) own() []netip.Addr {
	var own []netip.Addr
	seen := map[netip.Addr]bool{}
	for _, p := range l.addresses {
		if addr := p.Addr(); !addr.IsLoopback() && !addr.IsLinkLocalUnicast() && !seen[addr] {
			seen[addr] = true
			own = append(own, addr)
		}
	}
	return own
}

// assumeHost takes the addresses from the routes to them, or makes them up.
func (a *assembly) assumeHost(side *trace.Side, uplinks map[string]bool) {
	host := &side.Host
	for _, r := range a.routes {
		if uplinks[r.dev] {
			host.Uplink = r.dev
		}
		own := r.kind == "local" && r.table == tableLocal && r.dev != "lo" && r.dst.IsSingleIP()
		if addr := r.dst.Addr(); own && !addr.IsLinkLocalUnicast() {
			host.Addresses = append(host.Addresses, addr)
		}
	}
	invented := trace.InventedHost()
	if host.Uplink == "" {
		host.Uplink = invented.Uplink
	}
	if len(host.Addresses) == 0 {
		host.Addresses, side.Invented = invented.Addresses, true
		a.note("the addresses of the pod: no output of ip addr, so they are taken to be %s and %s, on %s",
			invented.Addresses[0], invented.Addresses[1], host.Uplink)
	}
}

// setUnread says what of the rules is not in the dump.
func (a *assembly) setUnread(side *trace.Side, saved []save) {
	program := map[ruleset.Family]string{ruleset.IPv4: "iptables", ruleset.IPv6: "ip6tables"}[side.Family]
	legacy := a.asked[program+"-legacy-save"] || slices.ContainsFunc(saved, func(s save) bool { return s.hint.backend == "legacy" })
	for _, warning := range a.warnings {
		switch {
		case strings.Contains(warning, "is incompatible") && a.listing != nil,
			strings.Contains(warning, "tables-legacy") && (legacy || !strings.Contains(warning, " "+program+"-legacy")):
		default:
			side.Unread = append(side.Unread, warning)
		}
	}
	asked := legacy || a.asked[program+"-save"] || a.asked[program+"-nft-save"] // and it printed nothing: there is no table
	if len(saved) == 0 && a.listing == nil && a.native == nil && !asked {
		side.Unread = append(side.Unread,
			fmt.Sprintf("the %s rules: neither %s-save nor nft -j list ruleset is in the dump", side.Family, program))
	}
}
