package rules

import (
	"slices"
	"testing"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// TestWalk, the second executor, walks every packet of every case through the wanted rules in
// the case's file, not those built now.
func TestWalk(t *testing.T) {
	for _, test := range cases(t) {
		if test.Refused() {
			continue
		}
		t.Run(test.Name, func(t *testing.T) {
			sets := map[ruleset.Family]ruleset.RuleSet{}
			for _, family := range ruleset.Families {
				text, _ := test.Section(sectionOf[family])
				rs, err := ruleset.Parse(family, text)
				if err != nil {
					t.Fatal(err)
				}
				sets[family] = rs
			}
			all := slices.Concat(test.Packets, test.Walk)
			if len(all) == 0 {
				t.Error("the case asks for no packet")
			}
			for _, x := range all {
				path := ruleset.Trace(sets[x.Packet.Family], Pod, x.Packet)
				if path.Outcome != x.Want {
					t.Errorf("%s\nbut walked:\n%s", x.Text, path)
				}
			}
		})
	}
}
