package ruleset_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/rules"
)

// pod is the host of the corpus.
var pod = rules.Pod

// FuzzTrace checks any arguments and any packet. The rules must print as text that parses to them.
// A walk must change nothing, end, name rules that exist, and always know where our own rules send
// a packet. What the proxy sends outside must never come back to it.
func FuzzTrace(f *testing.F) {
	addCorpus(f)
	f.Fuzz(func(t *testing.T, args, sent string) {
		spec, _, err := interception.ParseArgs(strings.Split(args, "\n"))
		if err != nil {
			return
		}
		packet, err := ruleset.ParsePacket(sent)
		if err != nil {
			return
		}
		set := ruleset.Build(spec, packet.Family)
		text := set.String()
		again, err := ruleset.Parse(packet.Family, text)
		if err != nil {
			t.Fatalf("what it prints does not parse: %v\n%s", err, text)
		}
		if diff := ruleset.Diff(set, again); diff != nil {
			t.Fatalf("printed and parsed: %q", diff)
		}
		path := ruleset.Trace(set, pod, packet)
		if after := set.String(); after != text {
			t.Fatalf("walking it changed the rule set (-before +after):\n%s", cmp.Diff(text, after))
		}
		if of := ruleset.Trace(again, pod, packet).String(); of != path.String() {
			t.Fatalf("parsed again it takes the path %s, before %s", of, path)
		}
		checkSteps(t, set, path)
		if err := checkOutcome(spec, packet, path.Outcome); err != nil {
			t.Errorf("%v\n%s", err, path)
		}
	})
}

// addCorpus adds each packet of each rule case as a seed.
func addCorpus(f *testing.F) {
	cases, err := rules.Load("../../test/rules/testdata/cases")
	if err != nil || len(cases) == 0 {
		f.Fatal("no cases to start from", err)
	}
	for _, c := range cases {
		for _, crossing := range slices.Concat(c.Packets, c.Walk) {
			packet, _, _ := strings.Cut(crossing.Text, " -> ")
			f.Add(strings.Join(c.Args, "\n"), packet)
		}
	}
}

// checkSteps checks that each step of a path is a rule of the rule set that was met.
func checkSteps(t *testing.T, rs ruleset.RuleSet, path ruleset.Path) {
	t.Helper()
	if path.RulesMet < len(path.Steps) {
		t.Fatalf("%d rules took part, of %d that were met", len(path.Steps), path.RulesMet)
	}
	for _, step := range path.Steps {
		c := rs.Chain(step.Table, step.Chain)
		if c == nil || step.Number < 1 || step.Number > len(c.Rules) || c.Rules[step.Number-1].String() != step.Rule.String() {
			t.Fatalf("there is no rule %s", step)
		}
	}
}

// checkOutcome checks what holds whatever the arguments are.
func checkOutcome(spec interception.Spec, packet ruleset.Packet, outcome ruleset.Outcome) error {
	again, err := ruleset.ParseOutcome(outcome.String())
	if err != nil {
		return fmt.Errorf("%+v prints as what does not parse: %w", outcome, err)
	}
	if again != outcome {
		return fmt.Errorf("%+v prints as %q, which parses as %+v", outcome, outcome, again)
	}
	switch outcome.Fate {
	case ruleset.Redirected, ruleset.TProxied:
		if ports := proxyPorts(spec, outcome.Fate); !slices.Contains(ports, outcome.Port) {
			return fmt.Errorf("%s, which is no port of the proxy's: %v", outcome, ports)
		}
	case ruleset.Unknown:
		// Whether it is dropped depends on the namespace's past.
		if !packet.Src.Is4() || !packet.Src.IsLoopback() || packet.Direction != ruleset.In {
			return fmt.Errorf("a walk of our own rules does not know where it ends")
		}
	case ruleset.Rejected:
		if len(spec.RejectUDPPorts) == 0 || packet.Protocol != "udp" {
			return fmt.Errorf("rejected, which nothing asks for")
		}
	case ruleset.Dropped:
		if !droppable(spec, packet) {
			return fmt.Errorf("dropped, which nothing asks for")
		}
	}
	return checkMust(spec, packet, outcome)
}

// checkMust checks where some packets have to end.
func checkMust(spec interception.Spec, p ruleset.Packet, o ruleset.Outcome) error {
	if isForged(p) && opens(p) && o.Fate != ruleset.Dropped && o.Fate != ruleset.Unknown {
		return fmt.Errorf("a neighbour reaches this host by an address that is everybody's own: %s", o)
	}
	if endsHere(spec, p) && o.Fate != ruleset.Direct {
		return fmt.Errorf("what the proxy sends outside does not leave: %s", o)
	}
	return nil
}

// isForged reports whether a packet came in with an address that means whichever host it is used
// on. No honest packet from outside has one.
func isForged(p ruleset.Packet) bool {
	return p.Direction == ruleset.In && p.Interface != "lo" &&
		(ruleset.ThisHost(p.Dst) || p.Src.IsValid() && ruleset.ThisHost(p.Src))
}

// endsHere reports whether a packet is one of the proxy's own on its way out.
func endsHere(spec interception.Spec, p ruleset.Packet) bool {
	if p.Direction != ruleset.Out || bound(p) || p.Dst.IsLoopback() || slices.Contains(pod.Addresses, p.Dst) || p.ConnMark != 0 {
		return false
	}
	if spec.System == interception.SystemAmbient {
		return p.Mark == spec.Mark
	}
	return p.Mark == 0 && (slices.Contains(spec.ProxyUIDs, p.UID) || slices.Contains(spec.ProxyGIDs, p.GID))
}

// proxyPorts returns the ports of the proxy that packets may be given to.
func proxyPorts(spec interception.Spec, fate ruleset.Fate) []uint16 {
	if fate == ruleset.TProxied && !spec.NoConntrack {
		return []uint16{spec.InboundPort}
	}
	ports := []uint16{spec.OutboundPort, spec.InboundPort}
	if spec.DNS.Redirect {
		ports = append(ports, spec.DNS.Port)
	}
	return ports
}

// opens reports whether a packet is the first of a connection.
func opens(p ruleset.Packet) bool { return p.State == ruleset.New || p.State == ruleset.Related }

// droppable reports whether a packet may be dropped: it belongs to no
// connection, is forged, or has no route because its socket is bound to lo.
func droppable(spec interception.Spec, p ruleset.Packet) bool {
	return spec.DropInvalid && p.State == ruleset.Invalid || isForged(p) || bound(p)
}

// bound reports whether the packet's socket is bound to lo: it does not leave the pod.
func bound(p ruleset.Packet) bool { return p.Direction == ruleset.Out && p.Interface != "" }
