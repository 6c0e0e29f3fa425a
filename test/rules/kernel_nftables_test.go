//go:build linux

package rules

import (
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/netns"
)

// TestNFTReadsEveryTable feeds the text of each case's tables to nft(8), each over those of the case
// before.
func TestNFTReadsEveryTable(t *testing.T) {
	netns.Require(t, "nft")
	t.Parallel()
	pod := newLab(t).Pod
	for _, c := range corpus(t) {
		if c.Refused() {
			continue
		}
		spec, _, err := c.Spec()
		if err != nil {
			t.Fatal(err)
		}
		var text string
		for _, family := range ruleset.Families {
			table, err := nft.Compile(ruleset.Build(spec, family))
			if err != nil {
				t.Fatalf("%s: %v", c.Name, err)
			}
			text += table.String()
		}
		cmd := pod.Command(t.Context(), "nft", "-f", "-")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s\n%s", c.Name, err, out, text)
		}
	}
}
