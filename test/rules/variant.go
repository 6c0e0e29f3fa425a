package rules

import (
	"slices"
	"strings"

	"golang.org/x/tools/txtar"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Variants returns the cases of SystemTProxy as the same system has to treat them
// without conntrack: each packet has to go the same way. What the app opens gets to
// the proxy by TPROXY instead of REDIRECT. A case with arguments that it refuses is
// left out.
func Variants(cases []Case) []Case {
	var all []Case
	for _, c := range cases {
		spec, _, err := c.Spec()
		if c.Refused() || err != nil || spec.System != interception.SystemTProxy || spec.NoConntrack {
			continue
		}
		args := slices.DeleteFunc(slices.Clone(c.Args), func(word string) bool { return strings.HasPrefix(word, "--backend=") })
		v := Case{
			Name: c.Name + "-no-conntrack", Args: append(args, "--no-conntrack", "--backend=nftables"), Archive: &txtar.Archive{},
			Packets: byMarks(spec, c.Packets), Walk: byMarks(spec, c.Walk),
		}
		built, _, err := v.Spec()
		if err != nil {
			continue
		}
		for _, family := range ruleset.Families {
			v.SetSection(map[ruleset.Family]string{ruleset.IPv4: "v4", ruleset.IPv6: "v6"}[family], ruleset.Build(built, family).String())
		}
		all = append(all, v)
	}
	return all
}

// TakenBy reports whether the rules of the case can be in a backend.
func (c Case) TakenBy(backend interception.Backend) bool {
	return backend == interception.BackendNFTables || !slices.Contains(c.Args, "--no-conntrack")
}

// byMarks returns the packets of a case as they are without conntrack. The app's
// answer to the proxy's hop is told by the mark of its socket instead of its
// connection's. Of other packets of an established connection the case does not say
// what mark their socket has.
func byMarks(spec interception.Spec, crossings []Crossing) []Crossing {
	var all []Crossing
	for _, x := range crossings {
		if x.Packet.State == ruleset.Established {
			if x.Packet.ConnMark != spec.Mark {
				continue
			}
			x.Packet.Mark, x.Packet.ConnMark = x.Packet.ConnMark, 0
		}
		if x.Want == (ruleset.Outcome{Fate: ruleset.Redirected, Port: spec.OutboundPort}) {
			x.Want.Fate = ruleset.TProxied
		}
		all = append(all, x)
	}
	return all
}
