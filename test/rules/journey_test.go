package rules

import (
	"slices"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// TestJourney follows every packet of every case through the pod. Its first leg has
// to end as the case says: a journey is made of the walks that are held to the
// kernel. What the proxy opens goes on to the app or out of the pod.
func TestJourney(t *testing.T) {
	legs := 0
	for _, test := range cases(t) {
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
				for _, leg := range journey.Legs {
					checkHooks(t, leg.Path)
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

// checkHooks holds what a path passed to the rules that took part: each is there, in
// its order.
func checkHooks(t *testing.T, path ruleset.Path) {
	t.Helper()
	var met []string
	for _, hook := range path.Hooks {
		if hook.Name == ruleset.RoutingHook && (len(hook.Passes) > 0 || hook.Route == "") {
			t.Errorf("chains where the kernel routes: %+v", hook)
		}
		for _, pass := range hook.Passes {
			for _, m := range pass.Met {
				if m.Number > 0 || m.Rule.Target == ruleset.Drop {
					met = append(met, m.Step.String())
				}
			}
		}
	}
	var steps []string
	for _, step := range path.Steps {
		steps = append(steps, step.String())
	}
	if !slices.Equal(met, steps) {
		t.Errorf("met: %q\nsteps: %q", met, steps)
	}
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

// TestIdentify reads the proxy back from the rules of each case. Of a port that no
// packet is sent to it need not know.
func TestIdentify(t *testing.T) {
	for _, test := range cases(t) {
		if test.Refused() {
			continue
		}
		spec, _, err := test.Spec()
		if err != nil {
			t.Fatal(err)
		}
		var sides []trace.Side
		for _, family := range ruleset.Families {
			set := ruleset.Build(spec, family)
			sides = append(sides, trace.Side{Family: family, Sets: []ruleset.RuleSet{set}, Routing: set.Routing})
		}
		got, want := trace.Identify(sides), trace.ProxyOf(spec)
		if strings.HasSuffix(test.Name, "-outbound-none") || strings.HasSuffix(test.Name, "-owner-groups-none") {
			want.Outbound = 0
		}
		if test.Name == "tproxy-inbound-none-no-conntrack" {
			want.Inbound = 0
		}
		if test.Name == "tproxy-inbound-none" {
			want.Inbound, want.Transparent, want.Mark = 0, false, 0
		}
		if got != want {
			t.Errorf("%s:\n%+v, want\n%+v", test.Name, got, want)
		}
	}
}

// TestIdentifyListings reads the proxy of the reference listings.
func TestIdentifyListings(t *testing.T) {
	want := map[string]trace.Proxy{
		"redirect": {UID: 1337, GID: 1337, Inbound: 15006, Outbound: 15001},
		"tproxy":   {UID: 1337, GID: 1337, Inbound: 15006, Outbound: 15001, Mark: 0x539, Transparent: true},
		"dns":      {UID: 1337, GID: 1337, Inbound: 15006, Outbound: 15001, DNS: 15053},
		"ambient":  {UID: 1337, GID: 1337, Inbound: 15006, Outbound: 15001, Mark: 0x539, MarkAll: true, Transparent: true},
		"legacy":   {UID: 1337, GID: 1337, Inbound: 15001, Outbound: 15001},
	}
	for _, listing := range Listings {
		for _, family := range ruleset.Families {
			set, err := listing.Read("testdata/listings", family)
			if err != nil {
				t.Fatal(err)
			}
			side := trace.Side{Family: family, Sets: []ruleset.RuleSet{set}, Routing: set.Routing}
			if got := trace.Identify([]trace.Side{side}); got != want[listing.Name] {
				t.Errorf("%s, %s: %+v, want %+v", listing.Name, family, got, want[listing.Name])
			}
		}
	}
}
