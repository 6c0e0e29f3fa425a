package trace

import (
	"strings"
	"testing"
)

// TestQuestion reads questions as the command line and the page put them.
func TestQuestion(t *testing.T) {
	pod := wanted(t, "-m TPROXY")
	for _, test := range []struct {
		question Question
		want     string // who, and the packet
	}{
		{Question{To: "192.0.2.1:80"}, "app: out tcp 192.0.2.1:80"},
		{
			Question{From: "app", To: "192.0.2.1:53", UDP: true, UID: "0", GID: "0x10", Mark: "0x539"},
			"app: out uid=0 gid=16 mark=1337 udp 192.0.2.1:53",
		},
		{Question{From: "proxy", To: "[2001:db8::1]:80"}, "proxy: out uid=1337 gid=1337 tcp [2001:db8::1]:80"},
		{Question{From: "proxy", To: "10.0.0.1:80", UID: "0"}, "proxy: out uid=0 gid=1337 tcp 10.0.0.1:80"},
		{Question{To: "10.0.0.1:80"}, "outside: in from=10.0.0.9 tcp 10.0.0.1:80"},
		{Question{From: "10.9.9.9:4000", To: "10.0.0.1:80"}, "outside: in from=10.9.9.9 tcp 10.0.0.1:80"},
		{Question{From: "10.0.0.1", To: "192.0.2.1:80"}, "app: out from=10.0.0.1 tcp 192.0.2.1:80"},
	} {
		c, err := test.question.Connection(pod)
		if err != nil {
			t.Errorf("%+v: %v", test.question, err)
			continue
		}
		if got := string(c.From) + ": " + c.Packet.String(); got != test.want {
			t.Errorf("%+v: %s, wanted %s", test.question, got, test.want)
		}
	}
}

// TestQuestionRefused names the field, the value and what is accepted.
func TestQuestionRefused(t *testing.T) {
	pod := wanted(t, "")
	for _, test := range []struct {
		question Question
		want     string
	}{
		{Question{From: "app"}, "to: Required value; accepted: ADDRESS:PORT, [ADDRESS]:PORT"},
		{Question{To: "fd00::1"}, `to: invalid value "fd00::1"; accepted: ADDRESS:PORT, [ADDRESS]:PORT`},
		{Question{To: "10.0.0.1:0"}, `to: invalid value "10.0.0.1:0"; accepted: ADDRESS:PORT, [ADDRESS]:PORT`},
		{Question{From: "me", To: "10.0.0.1:1"}, `from: invalid value "me"; accepted: app, proxy, ADDRESS, ADDRESS:PORT`},
		{Question{From: "::1", To: "10.0.0.1:1"}, `from: invalid value "::1" with to 10.0.0.1:1; accepted: addresses of one family`},
		{Question{From: "app", To: "10.0.0.1:1", UID: "-1", Mark: "red"}, "uid: invalid value \"-1\"; accepted: 0 to 4294967295\n" +
			"mark: invalid value \"red\"; accepted: 0 to 4294967295"},
		{
			Question{From: "10.0.0.9", To: "10.0.0.1:1", UID: "5"},
			"uid: given for a connection of another host; accepted: from app, from proxy",
		},
	} {
		if _, err := test.question.Connection(pod); err == nil || err.Error() != test.want {
			t.Errorf("%+v:\n%v\nwanted\n%s", test.question, err, test.want)
		}
	}
}

// TestQuestionOf asks for all paths that matter: the questions lead to the same
// connections.
func TestQuestionOf(t *testing.T) {
	for _, args := range []string{"", "-m TPROXY", "--system ambient"} {
		pod := wanted(t, args)
		for _, path := range Paths(pod) {
			question := QuestionOf(pod, path.Journey.Connection)
			c, err := question.Connection(pod)
			if err != nil || c != path.Journey.Connection {
				t.Errorf("%s: %+v asks for\n%+v, %v, and not\n%+v", strings.TrimSpace(args), question, c, err, path.Journey.Connection)
			}
		}
	}
}
