//go:build linux

package rules

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/netns"
)

// exitVerify is shunt-init's exit code if it found a difference.
const exitVerify = 5

// mutatedArguments build every system, and every kind of rule.
var mutatedArguments = []string{
	"-m REDIRECT -o 25 -i 10.0.0.0/8,fd00::/8 -x 10.1.0.0/16,fd00:1::/32 -q 9999",
	"-m TPROXY --capture-udp-ports=443 --reject-udp-ports=8443 --drop-invalid -c net1",
	"--system=ambient",
	"--system=legacy",
	"-m REDIRECT --redirect-dns --capture-all-dns -k net1",
	"-m TPROXY --redirect-dns --dns-servers=10.0.0.53,fd00::53",
}

// mutant is one change that verification has to find: commands that make it, and commands that undo
// it.
type mutant struct {
	name     string
	do, undo []string
}

// TestVerifyFindsEveryMutant changes rules and routing one by one, each in every way.
func TestVerifyFindsEveryMutant(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy", "ip")
	t.Parallel()
	bin := buildShuntInit(t)
	var mutants, found atomic.Int64
	for _, backend := range iptablesBackends {
		for _, text := range mutatedArguments {
			t.Run(string(backend)+" "+text, func(t *testing.T) {
				t.Parallel()
				m := newMutation(t, bin, backend, text)
				m.run(t)
				mutants.Add(m.mutants)
				found.Add(m.found)
			})
		}
	}
	t.Cleanup(func() {
		t.Logf("%d mutants, %d found", mutants.Load(), found.Load())
		if mutants.Load() == 0 || found.Load() != mutants.Load() {
			t.Errorf("%d of %d mutants were not found", mutants.Load()-found.Load(), mutants.Load())
		}
	})
}

// mutation is a namespace that is changed and repaired again and again.
type mutation struct {
	bin            string
	args           []string
	spec           interception.Spec
	opts           interception.Options
	pod            *netns.NS
	mutants, found int64
}

func newMutation(t *testing.T, bin string, backend interception.Backend, text string) *mutation {
	t.Helper()
	m := &mutation{bin: bin, args: argumentsOn(backend, text), pod: quietLab(t, "net1").Pod}
	var err error
	if m.spec, m.opts, err = interception.ParseArgs(m.args); err != nil {
		t.Fatal(err)
	}
	// As in most pods. Without it the kernel itself drops what guardLoopback is for.
	if err := m.pod.Sysctl("net/ipv4/conf/all/route_localnet", "1"); err != nil {
		t.Fatal(err)
	}
	run(t, m.pod, bin, m.args...)
	m.clean(t, "nothing")
	return m
}

// verify returns the findings of package kernel, without probes, which nothing here needs.
func (m *mutation) verify(t *testing.T) (findings []string) {
	t.Helper()
	err := m.pod.Do(func() error {
		host, err := kernel.Open(t.Context(), m.opts)
		if err != nil {
			return err
		}
		defer host.Close()
		var want []ruleset.RuleSet
		for _, family := range host.Families() {
			want = append(want, ruleset.Build(m.spec, family))
		}
		verdict, err := kernel.Verify(t.Context(), host, want, nil)
		findings = verdict.Findings
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return findings
}

// clean checks that the mutants have been undone: otherwise every later one would be found.
func (m *mutation) clean(t *testing.T, after string) {
	t.Helper()
	if findings := m.verify(t); len(findings) > 0 {
		t.Fatalf("after %s verification finds %q", after, findings)
	}
}

func (m *mutation) run(t *testing.T) {
	for _, family := range ruleset.Families {
		built := ruleset.Build(m.spec, family)
		for _, table := range built.Tables {
			for _, chain := range table.Chains {
				m.try(t, family, m.ofChain(family, table.Name, chain))
			}
		}
		m.try(t, family, ofRouting(built))
		m.try(t, family, m.ofOtherBackend(family))
	}
}

// shortStride makes -short try every third mutant. Most rules have four kinds of mutants, one after
// the other, so that every kind has its turn.
const shortStride = 3

// try makes mutants one after the other. The command is run for the first, the package for all.
func (m *mutation) try(t *testing.T, family ruleset.Family, mutants []mutant) {
	t.Helper()
	for i, mutant := range mutants {
		if testing.Short() && i%shortStride != 0 {
			continue
		}
		name := family.String() + " " + mutant.name
		m.mutants++
		m.commands(t, mutant.do)
		findings := m.verify(t)
		if len(findings) > 0 {
			m.found++
		} else {
			t.Errorf("not found: %s", name)
		}
		if i == 0 {
			m.exits(t, name, len(findings) > 0)
		}
		m.commands(t, mutant.undo)
	}
	m.clean(t, fmt.Sprintf("%d mutants", len(mutants)))
}

func (m *mutation) exits(t *testing.T, name string, found bool) {
	t.Helper()
	out, err := m.pod.Command(t.Context(), m.bin, append(m.args, "--verify")...).CombinedOutput()
	var exit *exec.ExitError
	if found && (!errors.As(err, &exit) || exit.ExitCode() != exitVerify) {
		t.Errorf("%s: %v, want exit code %d:\n%s", name, err, exitVerify, out)
	}
}

// commands runs lines in a shell, which understands iptables-save's quoting.
func (m *mutation) commands(t *testing.T, lines []string) {
	t.Helper()
	run(t, m.pod, "sh", "-ec", strings.Join(lines, "\n"))
}

func iptables(family ruleset.Family, backend interception.Backend, table string) string {
	return map[ruleset.Family]string{ruleset.IPv4: "iptables-", ruleset.IPv6: "ip6tables-"}[family] + string(backend) + " -t " + table + " "
}

// ofChain returns the mutants of one chain. Nobody else has rules there, so the places of the rules
// are those in the namespace.
func (m *mutation) ofChain(family ruleset.Family, table string, chain ruleset.Chain) []mutant {
	var mutants []mutant
	command := iptables(family, m.opts.Backend, table)
	where := table + " " + chain.Name
	remove := func(n int) string { return fmt.Sprintf("%s -D %s %d", command, chain.Name, n) }
	insert := func(n int, rule string) string { return fmt.Sprintf("%s -I %s %d %s", command, chain.Name, n, rule) }
	for i, r := range chain.Rules {
		n, text := i+1, r.String()
		mutants = append(mutants,
			mutant{fmt.Sprintf("%s %d deleted: %s", where, n, text), []string{remove(n)}, []string{insert(n, text)}},
			mutant{fmt.Sprintf("%s: ACCEPT before %d: %s", where, n, text), []string{insert(n, "-j ACCEPT")}, []string{remove(n)}},
			mutant{fmt.Sprintf("%s %d twice: %s", where, n, text), []string{insert(n, text)}, []string{remove(n)}})
		if i+1 < len(chain.Rules) && chain.Rules[i+1].String() != text {
			mutants = append(mutants, mutant{
				fmt.Sprintf("%s: %d and the next swapped: %s", where, n, text),
				[]string{remove(n), insert(n+1, text)}, []string{remove(n + 1), insert(n, text)}})
		}
	}
	return mutants
}

// ofRouting returns the mutants of addresses, policy rules and routes.
func ofRouting(built ruleset.RuleSet) []mutant {
	ip := fmt.Sprintf("ip -%d ", built.Family)
	cut := ip + "rule %s unreachable pref 0 proto 133"
	mutants := []mutant{{"cut off", []string{fmt.Sprintf(cut, "add")}, []string{fmt.Sprintf(cut, "del")}}}
	for _, a := range built.Routing.Addresses {
		add, del := ip+"addr add "+a.String()+" dev lo preferred_lft 0 nodad", ip+"addr del "+a.String()+" dev lo"
		mutants = append(mutants,
			mutant{"address deleted: " + a.String(), []string{del}, []string{add}},
			mutant{"address moved to eth0: " + a.String(), []string{del, strings.Replace(add, "dev lo", "dev eth0", 1)},
				[]string{strings.Replace(del, "dev lo", "dev eth0", 1), add}})
	}
	for _, p := range built.Routing.Rules {
		what := p.String() + " proto 133"
		add, del, late := ip+"rule add "+what+" pref 0", ip+"rule del "+what+" pref 0", " pref 40000"
		first := ip + "rule %s pref 0 fwmark 0/0 lookup main"
		mutants = append(mutants,
			mutant{"policy rule deleted: " + what, []string{del}, []string{add}},
			mutant{"policy rule moved behind main: " + what,
				[]string{del, ip + "rule add " + what + late}, []string{ip + "rule del " + what + late, add}},
			mutant{"policy rule of others before: " + what,
				[]string{del, fmt.Sprintf(first, "add"), add}, []string{fmt.Sprintf(first, "del")}})
		if p.OutInterface != "" {
			wide := strings.Replace(add, "oif "+p.OutInterface, "", 1)
			mutants = append(mutants,
				mutant{"policy rule for every socket: " + what, []string{del, wide}, []string{strings.Replace(wide, "add", "del", 1), add}})
		}
	}
	for _, l := range built.Routing.Routes {
		what := fmt.Sprintf("local default dev lo table %d proto 133", l.Table)
		add, del := ip+"route add "+what, ip+"route del "+what
		moved := strings.Replace(what, fmt.Sprintf("table %d", l.Table), "table 4242", 1)
		narrow := map[ruleset.Family]string{ruleset.IPv4: "10.0.0.0/8", ruleset.IPv6: "fd00::/8"}[built.Family]
		before := fmt.Sprintf("route %%s unreachable %s table %d", narrow, l.Table)
		mutants = append(mutants,
			mutant{"route deleted: " + what, []string{del}, []string{add}},
			mutant{"route moved: " + what, []string{del, ip + "route add " + moved}, []string{ip + "route del " + moved, add}},
			mutant{"route of others before: " + what, []string{ip + fmt.Sprintf(before, "add")}, []string{ip + fmt.Sprintf(before, "del")}})
	}
	return mutants
}

// ofOtherBackend returns rules of the other backend that take connections.
func (m *mutation) ofOtherBackend(family ruleset.Family) []mutant {
	other := map[interception.Backend]interception.Backend{
		interception.BackendNFT: interception.BackendLegacy, interception.BackendLegacy: interception.BackendNFT,
		interception.BackendNFTables: interception.BackendNFT,
	}[m.opts.Backend]
	table, target := "nat", "REDIRECT --to-ports 9"
	if m.opts.Backend == interception.BackendNFTables {
		table, target = "raw", "CT --notrack" // nat of iptables comes after ours, and gets what is left alone
	}
	var mutants []mutant
	for _, chain := range []string{"OUTPUT", "PREROUTING"} {
		rule, command := chain+" -p tcp -j "+target, iptables(family, other, table)
		mutants = append(mutants, mutant{"other backend: " + rule, []string{command + "-A " + rule}, []string{command + "-D " + rule}})
	}
	return mutants
}
