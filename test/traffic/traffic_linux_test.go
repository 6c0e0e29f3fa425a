package traffic

import (
	"slices"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// TestTraffic makes every trial directly and through the proxy, in both modes.
func TestTraffic(t *testing.T) {
	all := map[interception.Mode]*network{}
	for _, mode := range networks {
		all[mode] = newNetwork(t, mode)
	}
	trials := slices.Concat(
		lineTrials(), []trial{serverFirstTrial()}, endingTrials(), byteTrials(), []trial{transferTrial()}, truncatedTrials(),
	)
	checkDifferences(t, trials)
	compare(t, all, trials)
}
