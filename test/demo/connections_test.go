//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// goodRow is a connection through the proxy that went as it should, and goodLog
// its line of the access log.
func goodRow() row {
	return row{
		mode: interception.ModeRedirect, dst: netip.MustParseAddrPort("10.0.0.1:8080"),
		wantListener: inboundListener, wantSource: netip.MustParseAddr("127.0.0.6"),
		client: netip.MustParseAddrPort("10.0.0.9:40000"), seenBy: "app", source: netip.MustParseAddrPort("127.0.0.6:50000"),
	}
}

func goodLog() string {
	return `{"listener":"virtualInbound","upstream_cluster":"InboundPassthroughClusterIpv4","upstream_host":"10.0.0.1:8080",` +
		`"upstream_local_address":"127.0.0.6:50000","downstream_local_address":"10.0.0.1:8080",` +
		`"downstream_remote_address":"10.0.0.9:40000"}`
}

// TestJudge holds that nothing but what was wanted passes.
func TestJudge(t *testing.T) {
	but := func(old, replacement string) string { return strings.ReplaceAll(goodLog(), old, replacement) }
	other := but("10.0.0.9:40000", "10.0.0.9:40001")
	tests := []struct {
		name    string
		change  func(*row)
		output  []string
		problem string // a part of it; "" for none
	}{
		{"good", nil, []string{"[info] starting", other, goodLog()}, ""},
		{"another source", func(r *row) { r.wantSource = r.client.Addr() }, []string{goodLog()},
			"source address 127.0.0.6, wanted 10.0.0.9"},
		{"nothing logged", nil, []string{other}, "0 lines in the access log"},
		{"logged twice", nil, []string{goodLog(), goodLog()}, "2 lines in the access log"},
		{"direct, but logged", func(r *row) { r.wantListener = "" }, []string{goodLog()}, "wanted: direct"},
		{"direct", func(r *row) { r.wantListener = "" }, []string{other}, ""},
		{"another listener", func(r *row) { r.wantListener = outboundListener }, []string{goodLog()}, `got it on "virtualInbound"`},
		{"another destination", nil, []string{but("10.0.0.1:8080", "10.0.0.1:15006")}, "downstream_local_address"},
		{"another hop", nil, []string{but(":50000", ":50001")}, "upstream_local_address"},
		{"no connection", func(r *row) { r.err = fmt.Errorf("refused") }, []string{goodLog()}, "refused"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rows := []row{goodRow()}
			if tt.change != nil {
				tt.change(&rows[0])
			}
			(&scene{}).judge(rows, tt.output)
			switch err := rows[0].err; {
			case tt.problem == "" && err != nil:
				t.Errorf("got %v, want none", err)
			case tt.problem != "" && (err == nil || !strings.Contains(err.Error(), tt.problem)):
				t.Errorf("got %v, want %q", err, tt.problem)
			}
			if wrong := countWrong(rows); (wrong == 0) != (tt.problem == "") {
				t.Errorf("%d rows are wrong", wrong)
			}
		})
	}
}
