package trace

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

func wanted(t *testing.T, args string) Pod {
	t.Helper()
	spec, _, err := interception.ParseArgs(strings.Fields(args))
	if err != nil {
		t.Fatal(err)
	}
	return Wanted("test", spec, ruleset.Families)
}

func ask(t *testing.T, pod Pod, from Actor, text string) Journey {
	t.Helper()
	packet, err := ruleset.ParsePacket(text)
	if err != nil {
		t.Fatal(err)
	}
	return Walk(pod, Connection{From: from, Packet: packet})
}

func dump(j Journey) string {
	var b strings.Builder
	for _, l := range j.Legs {
		b.WriteString(l.Title + ": " + l.Packet.String() + "\n" + l.Path.String() + l.Outcome + "\n")
	}
	return b.String() + "=> " + string(j.End.Kind) + ": " + j.End.Text + "\n"
}

// TestEnds asks where connections end in each system, and which address the app
// sees.
func TestEnds(t *testing.T) {
	for _, test := range []struct {
		args, from, packet string
		end                EndKind
		proxied            bool
		sees               string
		legs               int
	}{
		{"-m REDIRECT", "outside", "in from=10.0.0.9 tcp 10.0.0.1:8080", EndApp, true, "127.0.0.6", 4},
		{"-m REDIRECT", "outside", "in from=fd00::9 tcp [fd00::1]:8080", EndApp, true, "::6", 4},
		{"-m REDIRECT", "outside", "in from=10.0.0.9 tcp 10.0.0.1:15021", EndApp, false, "10.0.0.9", 2},
		{"-m REDIRECT", "app", "out tcp 10.0.0.9:80", EndOutside, true, "10.0.0.1", 4},
		{"-m REDIRECT", "app", "out tcp [fd00::9]:80", EndOutside, true, "fd00::1", 4},
		{"-m REDIRECT", "app", "out tcp 127.0.0.1:80", EndApp, false, "127.0.0.1", 2},
		{"-m REDIRECT", "app", "out tcp 10.0.0.1:80", EndApp, false, "10.0.0.1", 2},
		{"-m REDIRECT", "proxy", "out uid=1337 gid=1337 tcp 10.0.0.1:80", EndApp, true, "127.0.0.6", 4},
		{"-m REDIRECT", "outside", "in from=10.0.0.9 tcp 10.0.0.1:15006", EndLoop, true, "", 2},
		{"-m TPROXY", "outside", "in from=10.0.0.9 tcp 10.0.0.1:8080", EndApp, true, "10.0.0.9", 4},
		{"-m TPROXY", "outside", "in from=fd00::9 tcp [fd00::1]:8080", EndApp, true, "fd00::9", 4},
		{"-m TPROXY", "app", "out tcp 10.0.0.9:80", EndOutside, true, "10.0.0.1", 4},
		{"-m TPROXY", "proxy", "out uid=1337 gid=1337 tcp 10.0.0.1:80", EndApp, true, "10.0.0.1", 4},
		{"-m REDIRECT --redirect-dns --capture-all-dns", "app", "out udp 10.0.0.10:53", EndOutside, true, "10.0.0.1", 4},
		{"-m REDIRECT --redirect-dns --capture-all-dns", "app", "out tcp 10.0.0.10:53", EndOutside, true, "10.0.0.1", 4},
		{"--system ambient", "outside", "in from=10.0.0.9 tcp 10.0.0.1:8080", EndApp, true, "10.0.0.9", 4},
		{"--system ambient", "app", "out tcp 10.0.0.9:80", EndOutside, true, "10.0.0.1", 4},
		{"--system legacy", "outside", "in from=10.0.0.9 tcp 10.0.0.1:8080", EndApp, true, "127.0.0.1", 4},
		{"--system legacy", "app", "out tcp 10.0.0.9:80", EndOutside, true, "10.0.0.1", 4},
	} {
		t.Run(test.args+" "+test.packet, func(t *testing.T) {
			j := ask(t, wanted(t, test.args), Actor(test.from), test.packet)
			var sees netip.Addr
			if test.sees != "" {
				sees = netip.MustParseAddr(test.sees)
			}
			if j.End.Kind != test.end || j.End.Proxied != test.proxied || j.End.Sees != sees || len(j.Legs) != test.legs {
				t.Errorf("%+v, %d legs:\n%s", j.End, len(j.Legs), dump(j))
			}
		})
	}
}

// TestListingLoops asks of Istio's TPROXY rules whether the proxy's own connection
// comes back to it. It does with uid 1337, and does not with uid 0.
func TestListingLoops(t *testing.T) {
	text, err := os.ReadFile("../../test/rules/testdata/listings/tproxy.rules")
	if err != nil {
		t.Fatal(err)
	}
	set, err := ruleset.Parse(ruleset.IPv4, string(text))
	if err != nil {
		t.Fatal(err)
	}
	routing := ruleset.Routing{
		Rules:  []ruleset.PolicyRule{{Mark: 0x539, Mask: 0xffffffff, Table: 133}},
		Routes: []ruleset.LocalRoute{{Table: 133}},
	}
	for uid, want := range map[uint32]EndKind{1337: EndLoop, 0: EndApp} {
		pod := Pod{
			Sides: []Side{{Family: ruleset.IPv4, Host: InventedHost(), Sets: []ruleset.RuleSet{set}, Routing: routing}},
			Proxy: Proxy{UID: uid, GID: 1337, Mark: 0x539, Inbound: 15006, Outbound: 15001, Transparent: true},
		}
		if j := ask(t, pod, Outside, "in from=10.0.0.9 tcp 10.0.0.1:8080"); j.End.Kind != want {
			t.Errorf("uid %d: %s", uid, dump(j))
		}
	}
}

// TestUnknown follows both ways behind a match that nobody understands.
func TestUnknown(t *testing.T) {
	set, err := ruleset.Parse(ruleset.IPv4, `*nat
-A PREROUTING -p tcp -m set --match-set clients src -j REDIRECT --to-ports 15006
-A OUTPUT -s 127.0.0.6/32 -j RETURN
COMMIT
`)
	if err != nil {
		t.Fatal(err)
	}
	pod := Pod{
		Sides: []Side{{Family: ruleset.IPv4, Host: InventedHost(), Sets: []ruleset.RuleSet{set}}},
		Proxy: Proxy{UID: 1337, GID: 1337, Inbound: 15006, Outbound: 15001},
	}
	j := ask(t, pod, Outside, "in from=10.0.0.9 tcp 10.0.0.1:8080")
	if j.Fork == nil || j.End.Kind != EndUnknown || !j.Fork.If.End.Proxied || j.Fork.Unless.End.Proxied {
		t.Fatalf("%+v", j)
	}
}
