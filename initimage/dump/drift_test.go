package dump_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/dump"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// TestDrift names the rules that a pod lacks, and those that it should not have.
func TestDrift(t *testing.T) {
	for _, args := range []string{"", "-m TPROXY", "--redirect-dns --dns-servers 10.0.0.10,fd00::a", "--system ambient", "--ipv6 off"} {
		spec, opts, err := interception.ParseArgs(strings.Fields(args))
		if err != nil {
			t.Fatal(err)
		}
		families := ruleset.Families
		if opts.IPv6 == interception.IPv6Off {
			families = families[:1]
		}
		pod := trace.Wanted("pod", spec, families)
		asked := spec
		asked.DNS.Servers = nil // the arguments of a pod have none: shunt-init reads resolv.conf
		if drift := dump.Drift(pod, asked, families); drift != nil {
			t.Errorf("%s: a pod as it should be: %q", args, drift)
		}
		chains := pod.Sides[0].Sets[0].Tables[len(pod.Sides[0].Sets[0].Tables)-1].Chains
		lost := chains[0].Rules[0]
		chains[0].Rules = append(slices.Clone(chains[0].Rules[1:]), ruleset.Rule{Target: ruleset.Jump{Chain: "SHUNT_OTHER"}})
		drift := strings.Join(dump.Drift(pod, asked, families), "\n")
		if !strings.Contains(drift, "IPv4: missing: nat -A "+chains[0].Name+" "+lost.String()) ||
			!strings.Contains(drift, "IPv4: not asked for: nat -A "+chains[0].Name+" -j SHUNT_OTHER") {
			t.Errorf("%s: %s", args, drift)
		}
	}
}
