package ruleset_test

import (
	"testing"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// TestHookSeesTheFirstInterface routes a packet of this host again, by its mark. The chains that
// follow at the same hook see the interface that it was about to leave by, and those of the next
// hook the new one.
func TestHookSeesTheFirstInterface(t *testing.T) {
	const marks = "*mangle\n-A OUTPUT -o eth0 -j MARK --set-xmark 0x1/0xffffffff\nCOMMIT\n"
	packet, err := ruleset.ParsePacket("out tcp 10.0.0.9:80")
	if err != nil {
		t.Fatal(err)
	}
	for rule, want := range map[string]ruleset.Outcome{
		"*nat\n-A OUTPUT -o eth0 -p tcp -j REDIRECT --to-ports 9\nCOMMIT\n": {Fate: ruleset.Redirected, Port: 9},
		"*nat\n-A OUTPUT -o lo -p tcp -j REDIRECT --to-ports 9\nCOMMIT\n":   {Fate: ruleset.Local},
		"*filter\n-A OUTPUT -o eth0 -j DROP\nCOMMIT\n":                      {Fate: ruleset.Dropped},
		"*filter\n-A OUTPUT -o lo -j DROP\nCOMMIT\n":                        {Fate: ruleset.Local},
		"*mangle\n-A POSTROUTING -o lo -j DROP\nCOMMIT\n":                   {Fate: ruleset.Dropped},
		"*mangle\n-A POSTROUTING -o eth0 -j DROP\nCOMMIT\n":                 {Fate: ruleset.Local},
	} {
		var sets []ruleset.RuleSet
		for _, text := range []string{marks, rule} {
			rs, err := ruleset.Parse(ruleset.IPv4, text)
			if err != nil {
				t.Fatal(err)
			}
			sets = append(sets, rs)
		}
		routing := ruleset.Routing{
			Rules: []ruleset.PolicyRule{{Mark: 1, Mask: 1<<32 - 1, Table: 133}}, Routes: []ruleset.LocalRoute{{Table: 133}},
		}
		path := ruleset.NewStack(routing, sets...).Trace(pod, packet, nil)
		if path.Outcome != want {
			t.Errorf("%s%s, want %s", rule, path, want)
		}
	}
}

// TestWhatTheKernelShowed holds walks to what random packets through random rules showed of the
// kernel (TestKernelRandom).
func TestWhatTheKernelShowed(t *testing.T) {
	for name, test := range map[string]struct {
		rules, packet string
		want          ruleset.Outcome
	}{
		"a connection that conntrack does not know has no mark to match, not even 0": {
			"*raw\n-A OUTPUT -m connmark --mark 0x0 -j DROP\nCOMMIT\n", "out tcp 10.0.0.9:80", ruleset.Outcome{Fate: ruleset.Direct}},
		"nor another than some": {
			"*raw\n-A OUTPUT -m connmark ! --mark 0x1 -j DROP\nCOMMIT\n", "out tcp 10.0.0.9:80", ruleset.Outcome{Fate: ruleset.Direct}},
		"what comes back over lo keeps its route, though it loses the mark that chose it": {
			"*mangle\n-A PREROUTING -i lo -j MARK --set-xmark 0x0/0xffffffff\nCOMMIT\n" +
				"# ip -4 rule add fwmark 0x1/0xffffffff lookup 133\n# ip -4 route add local default dev lo table 133\n",
			"out mark=1 tcp 10.0.0.9:80", ruleset.Outcome{Fate: ruleset.Local}},
		"MASQUERADE ends nat, so that a match nobody understands decides": {
			"*nat\n-A POSTROUTING -m string --string x --algo bm -j MASQUERADE\nCOMMIT\n",
			"out tcp 10.0.0.9:80", ruleset.Outcome{Fate: ruleset.Unknown}},
		"LOG does not": {
			"*nat\n-A POSTROUTING -m string --string x --algo bm -j LOG\nCOMMIT\n",
			"out tcp 10.0.0.9:80", ruleset.Outcome{Fate: ruleset.Direct}},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := ruleset.Parse(ruleset.IPv4, test.rules)
			if err != nil {
				t.Fatal(err)
			}
			packet, err := ruleset.ParsePacket(test.packet)
			if err != nil {
				t.Fatal(err)
			}
			if path := ruleset.Trace(set, pod, packet); path.Outcome != test.want {
				t.Errorf("%s, want %s", path, test.want)
			}
		})
	}
}
