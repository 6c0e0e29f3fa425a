package ruleset

import "github.com/shunt-dev/shunt/initimage/interception"

// multiportSlots is the number of ports that one multiport match holds
// (XT_MULTI_PORTS of linux/netfilter/xt_multiport.h); a range takes two.
const multiportSlots = 15

// portMatches returns matches of destination ports, any of which is enough: as few
// as the multiport extension allows.
func portMatches(protocol Protocol, ranges interception.PortRanges) []Match {
	var matches []Match
	var part interception.PortRanges
	slots := 0
	for _, r := range ranges {
		need := 1
		if r.First != r.Last {
			need = 2
		}
		if slots+need > multiportSlots {
			matches = append(matches, Ports{Protocol: protocol.Name, Ranges: part})
			part, slots = nil, 0
		}
		part = append(part, r)
		slots += need
	}
	if part != nil {
		matches = append(matches, Ports{Protocol: protocol.Name, Ranges: part})
	}
	return matches
}

// forPorts repeats a rule for destination ports.
func forPorts(why string, target Target, protocol Protocol, ranges interception.PortRanges, matches ...Match) []Rule {
	var rules []Rule
	for _, ports := range portMatches(protocol, ranges) {
		all := append([]Match{protocol, ports}, matches...)
		rules = append(rules, rule(why, target, all...))
	}
	return rules
}

// port returns the match of one destination port.
func port(protocol Protocol, number uint16) Match {
	return Ports{Protocol: protocol.Name, Ranges: interception.PortRanges{{First: number, Last: number}}}
}

// sourcePort returns the match of one source port.
func sourcePort(protocol Protocol, number uint16) Match {
	return Ports{Protocol: protocol.Name, Source: true, Ranges: interception.PortRanges{{First: number, Last: number}}}
}
