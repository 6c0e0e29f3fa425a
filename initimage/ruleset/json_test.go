package ruleset

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// TestRulesHaveJSON writes a rule with every match and target, and reads it back.
func TestRulesHaveJSON(t *testing.T) {
	packets := uint64(1 << 60)
	prefix := netip.MustParsePrefix("10.0.0.0/8")
	rules := []Rule{
		{
			Matches: []Match{
				Source{Prefix: prefix, Not: true}, Destination{Prefix: netip.MustParsePrefix("fd00::/8")}, InInterface{Name: "eth+"},
				OutInterface{Name: "lo", Not: true}, Protocol{Name: "tcp"},
				Ports{Protocol: "udp", Source: true, Ranges: interception.NewPortRanges(interception.PortRange{First: 1, Last: 5})},
				SYN{Not: true}, Owner{Group: true, First: 1, Last: 2}, Mark{Connection: true, Value: 1, Mask: allBits},
				SocketMark{Value: 1, Mask: 3},
				Conntrack{States: []State{New, Related}}, AddressType{Destination: true}, OpaqueMatch{Args: []string{"nft:set"}},
			},
			Comment: "why", Packets: &packets,
		},
		{Target: Sequence{SetMark{Value: 5, Mask: allBits}, Accept}},
	}
	for _, target := range []Target{
		Accept, Reject{With: "icmp-port-unreachable"}, Jump{Chain: "C", Goto: true}, Redirect{Port: 15001},
		DNAT{Address: netip.MustParseAddr("10.0.0.1"), Port: 5}, DNAT{}, Nowhere{},
		TProxy{Port: 5, Address: netip.IPv6Unspecified(), Mark: 1},
		SetMark{Connection: true}, SaveMark{}, RestoreMark{Masks{SparePacket: 5}}, NoTrack{}, ConntrackZone{Zone: 3},
		OpaqueTarget{Args: []string{"-j", "LOG"}},
	} {
		rules = append(rules, Rule{Target: target})
	}
	used := map[string]bool{}
	for _, r := range rules {
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var read Rule
		if err := json.Unmarshal(text, &read); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if diff := cmp.Diff(r, read, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" {
			t.Errorf("%s (-written +read):\n%s", text, diff)
		}
		for _, m := range r.Matches {
			used[reflect.TypeOf(m).Name()] = true
		}
		if r.Target != nil {
			used[reflect.TypeOf(r.Target).Name()] = true
		}
	}
	for name := range kinds {
		if !used[name] {
			t.Errorf("%s is not tested", name)
		}
	}
	for _, bad := range []string{
		`{"targets":[{"Nonsense":{}}]}`, `{"targets":[{"Source":{}}]}`, `{"matches":[{}]}`, `{"matches":[{"Mark":5}]}`,
	} {
		if err := json.Unmarshal([]byte(bad), &Rule{}); err == nil {
			t.Errorf("%s is read", bad)
		}
	}
}
