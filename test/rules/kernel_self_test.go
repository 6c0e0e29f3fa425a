//go:build linux

package rules

import (
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/netns"
)

// everyOutcome holds what the kernel executor can distinguish.
var everyOutcome = []string{"direct", "redirect 15001", "redirect 15006", "tproxy 15006", "tproxy 15001", "drop", "reject"}

// TestKernelTells checks the executor itself: for each packet it must accept the right outcome, and
// no other. The rules here are iptables commands, so that no code under test can make it pass.
func TestKernelTells(t *testing.T) {
	netns.Require(t, "iptables", "ip6tables", "ip")
	t.Parallel()
	tests := []struct {
		name, rules string // rules: one command a line; {iptables} is either family's
		packets     []string
	}{
		{"no rules", "", []string{
			"out tcp 10.0.0.9:80 -> direct",
			"out tcp [fd00::9]:80 -> direct",
			"out uid=1337 gid=1337 tcp 10.0.0.1:8080 -> direct",
			"out tcp 127.0.0.1:8080 -> direct",
			"out mark=0x539 udp 10.0.0.9:53 -> direct",
			"in tcp 10.0.0.1:8080 -> direct",
			"in if=net1 tcp [fd00::1]:8080 -> direct",
			"in from=192.0.2.1 udp 10.0.0.1:8080 -> direct",
		}},
		{"redirect", `
			{iptables} -t nat -A OUTPUT -p tcp --dport 80 -j REDIRECT --to-ports 15001
			{iptables} -t nat -A PREROUTING -p tcp --dport 8080 -j REDIRECT --to-ports 15006`,
			[]string{
				"out tcp 10.0.0.9:80 -> redirect 15001",
				"out tcp [fd00::9]:80 -> redirect 15001",
				"out tcp 10.0.0.9:81 -> direct",
				"in tcp 10.0.0.1:8080 -> redirect 15006",
				"in if=net1 tcp 10.0.0.1:8080 -> redirect 15006",
				"in tcp [fd00::1]:8080 -> redirect 15006",
			}},
		{"tproxy", `
			{iptables} -t mangle -A PREROUTING -p tcp --dport 8080 -j TPROXY --on-port 15006 --tproxy-mark 1
			ip {family} rule add fwmark 1 lookup 133
			ip {family} route add local default dev lo table 133`,
			[]string{
				"in tcp 10.0.0.1:8080 -> tproxy 15006",
				"in tcp [fd00::1]:8080 -> tproxy 15006",
				"in tcp 10.0.0.1:8081 -> direct",
			}},
		{"owner and mark", `
			{iptables} -A OUTPUT -p tcp --dport 80 -m owner --uid-owner 1337 -j REJECT --reject-with tcp-reset
			{iptables} -A OUTPUT -m owner --uid-owner 1337 -j REJECT
			{iptables} -A OUTPUT -m owner --gid-owner 1338 -j DROP
			{iptables} -A OUTPUT -m mark --mark 0x539 -j DROP`,
			[]string{
				"out uid=1337 tcp 10.0.0.9:80 -> reject",
				"out uid=1337 udp 10.0.0.9:53 -> reject",
				"out uid=1337 tcp [fd00::9]:80 -> reject",
				"out uid=1337 tcp 10.0.0.9:81 -> reject",
				"out gid=1338 tcp 10.0.0.9:80 -> drop",
				"out mark=0x539 udp [fd00::9]:53 -> drop",
				"out tcp 10.0.0.9:80 -> direct",
			}},
		{"source and interface", `
			iptables -A INPUT -s 192.0.2.1 -j DROP
			iptables -A INPUT -i net1 -p tcp -j REJECT --reject-with tcp-reset`,
			[]string{
				"in from=192.0.2.1 tcp 10.0.0.1:8080 -> drop",
				"in if=net1 tcp 10.0.0.1:8080 -> reject",
				"in tcp 10.0.0.1:8080 -> direct",
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			packets, err := crossings(strings.Join(tt.packets, "\n"))
			if err != nil {
				t.Fatal(err)
			}
			spec := interception.Default()
			spec.System = interception.SystemTProxy // for a listener that TPROXY can use
			a := newArena(t, spec, packets, func(pod *netns.NS) { runRules(t, pod, tt.rules) })
			for _, x := range packets {
				tellsApart(t, a, x)
			}
		})
	}
}

// runRules runs iptables and ip commands, once for each family unless they name one.
func runRules(t *testing.T, pod *netns.NS, commands string) {
	t.Helper()
	for line := range strings.Lines(commands) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		lines := []string{line}
		if strings.Contains(line, "{") {
			lines = []string{
				strings.NewReplacer("{iptables}", "iptables", "{family}", "-4").Replace(line),
				strings.NewReplacer("{iptables}", "ip6tables", "{family}", "-6").Replace(line),
			}
		}
		for _, command := range lines {
			words := strings.Fields(command)
			run(t, pod, words[0], words[1:]...)
		}
	}
}

// tellsApart checks that a packet's own outcome is accepted, and every other rejected.
func tellsApart(t *testing.T, arena *arena, crossing Crossing) {
	t.Helper()
	if err := arena.cross(t.Context(), crossing); err != nil {
		t.Error(err)
	}
	arena.patience = dropTime
	defer func() { arena.patience = 0 }()
	for _, text := range everyOutcome {
		wrong, err := ruleset.ParseOutcome(text)
		if err != nil {
			t.Fatal(err)
		}
		if wrong == crossing.Want || crossing.Want.Fate == ruleset.Dropped && wrong.Fate != ruleset.Rejected {
			continue // one is enough of what is dropped: each takes the time of an answer
		}
		other := Crossing{Text: crossing.Text + ", not " + text, Packet: crossing.Packet, Want: wrong}
		if err := arena.cross(t.Context(), other); err == nil {
			t.Errorf("%s: %q passes too", crossing.Text, text)
		}
	}
}

// TestKernelRefuses checks that packets that cannot be sent do not pass by being left out.
func TestKernelRefuses(t *testing.T) {
	netns.Require(t, "iptables", "ip6tables", "ip")
	t.Parallel()
	packets, err := crossings(`
		out connmark=0x539 tcp 10.0.0.9:80 -> direct
		out state=ESTABLISHED tcp 10.0.0.9:80 -> direct
		out tcp 10.0.0.9:80 -> unknown
		out tcp 10.0.0.9:80 -> local`)
	if err != nil {
		t.Fatal(err)
	}
	a := newArena(t, interception.Default(), packets, func(*netns.NS) {})
	for _, x := range packets {
		if err := a.cross(t.Context(), x); err == nil {
			t.Errorf("%q passes", x.Text)
		}
	}
}
