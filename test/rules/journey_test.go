package rules

import (
	"slices"
	"testing"

	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// TestJourney follows every packet of every case through the pod. Its first leg has
// to end as the case says: a journey is made of the walks that are held to the
// kernel. What the proxy opens goes on to the app or out of the pod.
func TestJourney(t *testing.T) {
	legs := 0
	for _, test := range corpus(t) {
		if test.Refused() {
			continue
		}
		t.Run(test.Name, func(t *testing.T) {
			spec, _, err := test.Spec()
			if err != nil {
				t.Fatal(err)
			}
			pod := trace.Pod{Proxy: trace.ProxyOf(spec)}
			for _, family := range ruleset.Families {
				text, _ := test.Section(sectionOf[family])
				set, err := ruleset.Parse(family, text)
				if err != nil {
					t.Fatal(err)
				}
				pod.Sides = append(pod.Sides, trace.Side{Family: family, Host: Pod, Sets: []ruleset.RuleSet{set}, Routing: set.Routing})
			}
			for _, x := range slices.Concat(test.Packets, test.Walk) {
				journey := trace.Walk(pod, trace.Connection{From: opener(x.Packet, pod.Proxy), Packet: x.Packet})
				legs += len(journey.Legs)
				if first := journey.Legs[0].Path; first.Outcome != x.Want {
					t.Errorf("%s\nbut the journey begins:\n%s", x.Text, first)
				}
				opens := x.Packet.State == ruleset.New
				ends := journey.End.Kind == trace.EndApp || journey.End.Kind == trace.EndOutside
				if proxied := len(journey.Legs) > 1 && journey.End.Proxied; opens && proxied && !ends {
					t.Errorf("%s\nends: %s: %s", x.Text, journey.End.Kind, journey.End.Text)
				}
			}
		})
	}
	t.Logf("%d legs", legs)
}

func opener(packet ruleset.Packet, proxy trace.Proxy) trace.Actor {
	switch {
	case packet.Direction == ruleset.In:
		return trace.Outside
	case packet.UID == proxy.UID || packet.GID == proxy.GID:
		return trace.TheProxy
	}
	return trace.App
}
