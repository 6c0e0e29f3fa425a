package kernel

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/initimage/nft"
)

// TestIntervalsThatTouch puts intervals together of which one begins where another ends, in the
// order in which the kernel lists them: from the greatest bound down, or up.
func TestIntervalsThatTouch(t *testing.T) {
	from := func(n byte) bound { return bound{Element: nft.Element{First: []byte{n}}} }
	end := func(n byte) bound { return bound{Element: nft.Element{First: []byte{n}}, end: true} }
	want := [][2]byte{{10, 19}, {20, 29}, {40, 40}, {250, 255}}
	for name, listed := range map[string][]bound{
		"up":          {from(10), end(20), from(20), end(30), from(40), end(41), from(250)},
		"begin first": {from(10), from(20), end(20), end(30), from(40), end(41), from(250)},
		"down":        {from(250), end(41), from(40), end(30), from(20), end(20), from(10)},
	} {
		var got [][2]byte
		for _, e := range intervals(listed) {
			got = append(got, [2]byte{e.First[0], e.Last[0]})
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
