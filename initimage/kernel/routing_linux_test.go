package kernel

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// TestNoPolicyRulesIsExplained asks the kernel for the rules of a family that has none. A kernel
// without policy routing for IPv6 gives the same answer, which must be explained.
func TestNoPolicyRulesIsExplained(t *testing.T) {
	_, err := netlink.RuleList(unix.AF_BRIDGE)
	if err == nil {
		t.Fatal("this kernel has policy rules for bridges")
	}
	for family, wants := range map[ruleset.Family][]string{
		ruleset.IPv4: {"policy routing for IPv4", "CONFIG_IP_MULTIPLE_TABLES"},
		ruleset.IPv6: {"policy routing for IPv6", "CONFIG_IPV6_MULTIPLE_TABLES", "--ipv6=off"},
	} {
		explained := explainNoRules(family, err)
		for _, want := range wants {
			if !strings.Contains(explained.Error(), want) {
				t.Errorf("%s: %q is not in: %v", family, want, explained)
			}
		}
	}
	if other := explainNoRules(ruleset.IPv6, unix.EPERM); other != unix.EPERM { //nolint:errorlint // it is not to be wrapped
		t.Errorf("EPERM is explained as %v", other)
	}
}
