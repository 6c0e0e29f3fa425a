//go:build linux

package rules

import (
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/test/netns"
)

// TestWhatCannotBeProbed holds that a namespace that forbids IPv6 on new
// interfaces, and so on the probes' link, is verified all the same, and that
// what was not probed is said.
func TestWhatCannotBeProbed(t *testing.T) {
	netns.Require(t)
	shuntInit := buildShuntInit(t)
	pod := newLab(t).Pod
	if err := pod.Sysctl("net/ipv6/conf/default/disable_ipv6", "1"); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-m", "TPROXY"}, {"-m", "TPROXY", "--verify"}} {
		if out := run(t, pod, shuntInit, args...); !strings.Contains(out, "verified, but IPv6 could not be probed here") {
			t.Errorf("%q: %s", args, out)
		}
	}
	if err := pod.Sysctl("net/ipv6/conf/default/disable_ipv6", "0"); err != nil {
		t.Fatal(err)
	}
	if out := run(t, pod, shuntInit, "-m", "TPROXY", "--verify"); !strings.HasSuffix(strings.TrimSpace(out), ": verified") {
		t.Errorf("with IPv6 everywhere: %s", out)
	}
}
