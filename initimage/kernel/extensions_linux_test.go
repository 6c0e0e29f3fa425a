package kernel

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to ask the kernel for its netfilter extensions")
	}
}

// TestRequireTakesEverySystem checks that Require accepts a kernel that can run the rules, as
// test/rules shows of this one.
func TestRequireTakesEverySystem(t *testing.T) {
	requireRoot(t)
	for args, spec := range systems(t) {
		for _, name := range backends {
			h := &Host{backend: backend{name: name}}
			if err := h.Require(both(spec)); err != nil {
				t.Errorf("%s over %s: %v", args, name, err)
			}
		}
	}
}

func TestRequireNamesWhatIsMissing(t *testing.T) {
	requireRoot(t)
	rs := ruleset.RuleSet{Family: ruleset.IPv6, Tables: []ruleset.Table{{Name: "nat", Chains: []ruleset.Chain{{
		Name: "OUTPUT", Rules: []ruleset.Rule{{
			Matches: []ruleset.Match{ruleset.Owner{First: 1, Last: 1}, ruleset.OpaqueMatch{Args: []string{"-m", "nosuchmatch"}}},
			Target:  ruleset.OpaqueTarget{Args: []string{"-j", "NOSUCHTARGET"}},
		}},
	}}}}}
	h := &Host{backend: backend{name: interception.BackendNFT}}
	err := h.Require([]ruleset.RuleSet{rs})
	if !errors.Is(err, ErrPreflight) {
		t.Fatalf("error %v", err)
	}
	for _, want := range []string{`match "nosuchmatch" for IPv6`, `target "NOSUCHTARGET" for IPv6`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not named: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "owner") {
		t.Errorf("what is there is named: %v", err)
	}
}
