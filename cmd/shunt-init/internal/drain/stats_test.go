package drain

import (
	"strings"
	"testing"
)

const twoListeners = `virtualInbound::0.0.0.0:15006
virtualInbound_v6::[::]:15006
virtualOutbound::0.0.0.0:15001
health::0.0.0.0:15021
metrics::0.0.0.0:15090
`

// quiet are the statistics of an idle proxy, among others.
const quiet = `cluster.PassthroughCluster.upstream_cx_active: 7
http.admin.downstream_cx_active: 1
http.admin.downstream_rq_active: 1
http.In.downstream_cx_active: 0
http.In.downstream_cx_http1_active: 0
http.In.downstream_rq_active: 0
http.Out.downstream_cx_active: 0
http.Out.downstream_rq_active: 0
http.health.downstream_cx_active: 1
http.health.downstream_rq_active: 1
listener.0.0.0.0_15001.downstream_cx_active: 0
listener.0.0.0.0_15001.downstream_pre_cx_active: 0
listener.0.0.0.0_15001.http.Out.downstream_rq_completed: 4
listener.0.0.0.0_15006.downstream_cx_active: 0
listener.0.0.0.0_15006.downstream_pre_cx_active: 0
listener.0.0.0.0_15006.http.In.downstream_rq_completed: 5
listener.0.0.0.0_15006.worker_0.downstream_cx_active: 0
listener.[__]_15006.downstream_cx_active: 0
listener.[__]_15006.downstream_pre_cx_active: 0
listener.[__]_15006.http.In.downstream_rq_completed: 0
listener.0.0.0.0_15021.downstream_cx_active: 9
listener.0.0.0.0_15021.downstream_pre_cx_active: 9
listener.0.0.0.0_15021.http.health.downstream_rq_completed: 9
listener.admin.downstream_cx_active: 1
listener.admin.http.admin.downstream_rq_completed: 1
tcp.In.upstream_flush_active: 0
http.In.downstream_rq_time: P0(nan,0) P25(nan,0)
listener.0.0.0.0_15006.downstream_cx_length_ms: No recorded values
`

func TestCount(t *testing.T) {
	for name, test := range map[string]struct {
		changes []string // lines that replace those of the same name
		want    UnderWay
	}{
		"nothing": {},
		"an idle HTTP connection": {
			[]string{"listener.0.0.0.0_15006.downstream_cx_active: 1", "http.In.downstream_cx_active: 1"},
			UnderWay{},
		},
		"idle HTTP connections of both families and directions": {
			[]string{
				"listener.0.0.0.0_15006.downstream_cx_active: 1", "listener.[__]_15006.downstream_cx_active: 2",
				"http.In.downstream_cx_active: 3", "listener.0.0.0.0_15001.downstream_cx_active: 4", "http.Out.downstream_cx_active: 4",
			},
			UnderWay{},
		},
		"a request": {
			[]string{
				"listener.0.0.0.0_15006.downstream_cx_active: 1", "http.In.downstream_cx_active: 1", "http.In.downstream_rq_active: 1",
			},
			UnderWay{Requests: 1},
		},
		"an IPv6 connection": {[]string{"listener.[__]_15006.downstream_cx_active: 1"}, UnderWay{Connections: 1}},
		"one outbound, beside an idle HTTP connection inbound": {
			[]string{
				"listener.0.0.0.0_15001.downstream_cx_active: 1",
				"listener.0.0.0.0_15006.downstream_cx_active: 1", "http.In.downstream_cx_active: 1",
			},
			UnderWay{Connections: 1},
		},
		"one that is being looked at": {[]string{"listener.0.0.0.0_15006.downstream_pre_cx_active: 1"}, UnderWay{Connections: 1}},
		"one that is still passed on": {[]string{"tcp.In.upstream_flush_active: 1"}, UnderWay{Connections: 1}},
		"HTTP ahead of its listener":  {[]string{"http.In.downstream_cx_active: 1"}, UnderWay{}},
		"HTTP ahead, and one passed on": {
			[]string{"http.In.downstream_cx_active: 1", "tcp.In.upstream_flush_active: 1"},
			UnderWay{Connections: 1},
		},
		"requests of the proxy's own use": {
			[]string{"http.health.downstream_rq_active: 3", "http.admin.downstream_rq_active: 3"},
			UnderWay{},
		},
	} {
		got, err := count(twoListeners, changed(t, quiet, test.changes))
		if err != nil || got != test.want {
			t.Errorf("%s: %s, error %v; want %s", name, got, err, test.want)
		}
	}
}

// changed replaces the lines with the same names.
func changed(t *testing.T, text string, lines []string) string {
	t.Helper()
	for _, line := range lines {
		name, _, _ := strings.Cut(line, ": ")
		_, after, found := strings.Cut("\n"+text, "\n"+name+": ")
		if !found {
			t.Fatalf("there is no %s", name)
		}
		old, _, _ := strings.Cut(after, "\n")
		text = strings.Replace(text, name+": "+old, line, 1)
	}
	return text
}

func TestCountWithoutListeners(t *testing.T) {
	if got, err := count("health::0.0.0.0:15021\n", quiet); err != nil || got.Any() {
		t.Errorf("%s, error %v; want nothing", got, err)
	}
}

// TestCountDoesNotGuess checks that a listener whose connections are not counted is an error: it
// may have any number of them.
func TestCountDoesNotGuess(t *testing.T) {
	got, err := count(twoListeners, strings.ReplaceAll(quiet, "listener.[__]_15006", "listener.other"))
	if err == nil || !strings.Contains(err.Error(), "listener.[__]_15006.downstream_cx_active") {
		t.Errorf("%s, error %v; want one that names what is missing", got, err)
	}
}

func TestUnderWayInWords(t *testing.T) {
	for want, u := range map[string]UnderWay{
		"0 requests and 2 connections": {0, 2}, "1 request and 1 connection": {1, 1},
	} {
		if u.String() != want {
			t.Errorf("%q, want %q", u, want)
		}
	}
}
