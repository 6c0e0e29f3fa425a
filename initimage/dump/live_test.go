package dump_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/dump"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// TestLive reads two dumps with a connection between them, and finds the rules that counted it.
func TestLive(t *testing.T) {
	rules := func(first, second string) string {
		return "# iptables-save\n*nat\n:OUTPUT ACCEPT [0:0]\n:C - [0:0]\n[5:300] -A OUTPUT -d 10.0.0.1/32 -j ACCEPT\n[" + first +
			":60] -A OUTPUT -p tcp -j C\n[" + second + ":60] -A C -p tcp -j REDIRECT --to-ports 15001\nCOMMIT\n"
	}
	from, to := netip.MustParseAddrPort("10.0.0.1:4711"), netip.MustParseAddrPort("10.0.0.9:80")
	for _, attempt := range []dump.Attempt{{From: from, To: to}, {To: to, Failure: "dial tcp 10.0.0.9:80:\nconnection refused"}} {
		pod, _, err := dump.ReadLive("pod", rules("3", "7")+attempt.String()+"\n"+rules("4", "9"))
		if err != nil {
			t.Fatal(err)
		}
		live := pod.Live
		if live.From != attempt.From || live.To != to || live.Failure != strings.ReplaceAll(attempt.Failure, "\n", " ") {
			t.Errorf("%+v, want %+v", live, attempt)
		}
		var got []string
		for _, count := range live.Counted {
			got = append(got, strings.Repeat("+", int(count.Packets))+count.Rule.Chain)
		}
		if strings.Join(got, " ") != "+OUTPUT ++C" {
			t.Errorf("counted: %q", got)
		}
		var text strings.Builder
		if err := trace.Text(&text, []trace.Answer{{Pod: pod}}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text.String(), "       2  IPv4 nat C 1: -p tcp -j REDIRECT --to-ports 15001\n") {
			t.Error(text.String())
		}
	}
	for _, text := range []string{"", rules("1", "1"), rules("1", "1") + "# shunt connected nowhere - \n" + rules("1", "1")} {
		if _, _, err := dump.ReadLive("pod", text); err == nil {
			t.Errorf("%q is read", text)
		}
	}
}
