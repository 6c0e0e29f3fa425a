package ruleset

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// passiveTargets do not change where a packet goes. They look at it, count it, or
// write to fields that no rule of ours and no route depends on. Targets that change
// the source address are among them.
var passiveTargets = []string{
	"LOG", "NFLOG", "ULOG", "TRACE", "AUDIT", "ACCOUNT", "RATEEST", "LED", "IDLETIMER", "SET", "TEE",
	"TCPMSS", "TCPOPTSTRIP", "DSCP", "TOS", "ECN", "TTL", "HL", "CHECKSUM", "CLASSIFY", "SECMARK", "CONNSECMARK",
	"SNAT", "MASQUERADE", "NETFLOW",
}

// blockingTargets hold a packet back, or let it go on.
var blockingTargets = []string{"NFQUEUE", "SYNPROXY", "TARPIT"}

func (t OpaqueTarget) name() string {
	if len(t.Args) > 1 && t.Args[0] == "-j" {
		return t.Args[1]
	}
	return ""
}

// passive reports whether the target leaves alone where a packet goes. CT sets a
// helper, a zone or a timeout, unless it is --notrack.
func (t OpaqueTarget) passive() bool {
	return slices.Contains(passiveTargets, t.name()) ||
		t.name() == "CT" && !slices.Contains(t.Args, "--notrack")
}

// settles reports whether the target, though it is passive, decides which rules the
// packet meets next.
func (t OpaqueTarget) settles() bool {
	return slices.Contains([]string{"SNAT", "MASQUERADE", "CT"}, t.name())
}

// pass applies a passive target as far as it decides which rules the packet meets
// next: nat is done with a packet whose source it has rewritten, and conntrack heeds
// the first CT only.
func (t OpaqueTarget) pass(h *traversal) action {
	switch t.name() {
	case "SNAT", "MASQUERADE":
		h.translated = true
		target, _ := dnatTo(h.Family, pairs(t.Args)["--to-source"]).(DNAT)
		switch {
		case target.Address.IsValid():
			h.setSource(target.Address)
		case h.out == loopbackName && h.Family == IPv6:
			h.chooseSource()
		default:
			h.setSource(h.host.addressOf(h.out, h.Family))
		}
		return actionAccept
	case "CT":
		h.templated = h.templated || !h.tracked
	}
	return actionContinue
}

// equivalent returns the target that a walk applies instead of one that this
// package neither builds nor prints itself; nil if that is not known.
func (t OpaqueTarget) equivalent(family Family) Target {
	values := pairs(t.Args)
	switch name := t.name(); {
	case slices.Contains(blockingTargets, name):
		return Accept
	case name == "REDIRECT":
		return Redirect{Port: firstPort(values["--to-ports"])}
	case name == "DNAT":
		return dnatTo(family, values["--to-destination"])
	case name == "NOTRACK", name == "CT":
		return NoTrack{}
	case name == "MARK", name == "CONNMARK":
		return markBits(name == "CONNMARK", values)
	}
	return nil
}

// firstPort reads the first port of a range; 0 for none.
func firstPort(text string) uint16 {
	first, _, _ := strings.Cut(text, "-")
	port, err := strconv.ParseUint(first, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(port)
}

// dnatTo reads ADDRESS[-ADDRESS][:PORT[-PORT]], an IPv6 address with a port in
// brackets; nil if it does not parse.
func dnatTo(family Family, text string) Target {
	addr, port := text, ""
	switch {
	case strings.HasPrefix(text, "["):
		addr, port, _ = strings.Cut(text[1:], "]")
		port = strings.TrimPrefix(port, ":")
	case family == IPv4:
		addr, port, _ = strings.Cut(text, ":")
	}
	target := DNAT{Port: firstPort(port)}
	if addr, _, _ = strings.Cut(addr, "-"); addr != "" {
		var err error
		if target.Address, err = netip.ParseAddr(addr); err != nil {
			return nil
		}
	}
	return target
}

// markBits reads the options of MARK and CONNMARK that change single bits.
func markBits(connection bool, values map[string]string) Target {
	for option, target := range map[string]func(bits uint32) SetMark{
		"--and-mark": func(bits uint32) SetMark { return SetMark{connection, 0, ^bits} },
		"--or-mark":  func(bits uint32) SetMark { return SetMark{connection, bits, bits} },
		"--xor-mark": func(bits uint32) SetMark { return SetMark{connection, bits, 0} },
	} {
		if text, given := values[option]; given {
			if bits, err := parseUint32(text); err == nil {
				return target(bits)
			}
		}
	}
	return nil
}

// jump returns the jump to another chain, if the rule has one.
func (r Rule) jump() (Jump, bool) {
	target := r.Target
	if all, ok := target.(Sequence); ok && len(all) > 0 {
		target = all[len(all)-1]
	}
	jump, ok := target.(Jump)
	return jump, ok
}

// opaque reports whether the rule has a match that is not understood.
func (r Rule) opaque() bool {
	return slices.ContainsFunc(r.Matches, func(m Match) bool {
		_, is := m.(OpaqueMatch)
		return is
	})
}

// protocolNumbers are the names of protocols that iptables prints as numbers on a
// system without a list of names.
var protocolNumbers = map[string]string{"6": "tcp", "17": "udp"}

// accepts reports whether the match accepts packets of the named protocol.
func (m Protocol) accepts(name string) bool {
	own := m.Name
	is := own == name || own == "all" || own == "0"
	if !is && own != "" && own[0] <= '9' {
		is = protocolNumbers[own] == name
	}
	return is != m.Not
}

// Opaque reports whether the set has a match that is not understood.
func (rs RuleSet) Opaque() bool {
	for step := range rs.Rules() {
		if step.Rule.opaque() {
			return true
		}
	}
	return false
}

// ProxyPorts returns the ports that the rules send packets to.
func (rs RuleSet) ProxyPorts() map[uint16]bool {
	ports := map[uint16]bool{}
	for step := range rs.Rules() {
		switch target := step.Rule.Target.(type) {
		case Redirect:
			ports[target.Port] = true
		case TProxy:
			ports[target.Port] = true
		}
	}
	return ports
}
