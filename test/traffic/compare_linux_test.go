package traffic

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// trial is something that a client and a server do.
type trial struct {
	name string
	// prepare starts a server on the way's host, for both families; nil if talk has its own.
	prepare func(*testing.T, *way)
	// talk does it, and returns what both ends saw, as lines without anything that differs from one
	// run to the next.
	talk func(*testing.T, *way) []string
	// want is what both ends see without a proxy: a trial that always fails would compare nothing.
	want []string
	// holds are some of these lines, if all are too many to write down.
	holds []string
	// ways are where it runs; nil for all.
	ways []direction
	// times is how often it runs if the result may vary. Every result that differs from want
	// counts.
	times int
	// uncarried means that the proxy need not see the connection.
	uncarried bool
}

// seen is what both ends saw, by network and way.
type seen map[interception.Mode]map[direction][]string

// compare runs a trial in every network, and compares.
func compare(t *testing.T, all map[interception.Mode]*network, trials []trial) {
	for _, tr := range trials {
		t.Run(tr.name, func(t *testing.T) {
			if tr.ways == nil {
				tr.ways = directions
			}
			results := seen{}
			for _, mode := range networks {
				results[mode] = map[direction][]string{}
			}
			t.Run("in", func(t *testing.T) {
				for mode, n := range all {
					t.Run(string(mode), func(t *testing.T) {
						t.Parallel() // each has its own results
						tr.make(t, n, results[mode])
					})
				}
			})
			if !t.Failed() {
				tr.judge(t, results)
			}
		})
	}
}

// make runs a trial on the ways of a network.
func (tr trial) make(t *testing.T, n *network, results map[direction][]string) {
	folder := ""
	for i, d := range tr.ways {
		w := &way{direction: d, network: n, folder: folder}
		if tr.prepare != nil && (i == 0 || tr.ways[i-1].inbound != d.inbound) {
			tr.prepare(t, w)
			folder = w.folder
		}
		t.Run(d.String(), func(t *testing.T) {
			before := n.carried(t)
			for range max(1, tr.times) {
				if results[d] = tr.talk(t, w); tr.want == nil || !slices.Equal(results[d], tr.want) {
					break
				}
			}
			for deadline := time.Now().Add(arrivalTime); n.mode != direct && !tr.uncarried && n.carried(t) == before; {
				if time.Now().After(deadline) {
					t.Fatal("the proxy carried no connection")
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
}

// judge compares what was seen with a proxy with what was seen without.
func (tr trial) judge(t *testing.T, results seen) {
	occurred, expected := make([]int, len(differences)), make([]int, len(differences))
	for _, d := range tr.ways {
		without := results[direct][d]
		if diff := cmp.Diff(text(tr.want), text(without)); diff != "" && tr.want != nil {
			t.Errorf("%s, without a proxy (-want +got):\n%s", d, diff)
			continue
		}
		for _, line := range tr.holds {
			if !slices.Contains(without, line) {
				t.Errorf("%s, without a proxy: no line %q in:\n%s", d, line, text(without))
			}
		}
		for _, mode := range modes {
			with := results[mode][d]
			known := slices.IndexFunc(differences, func(known difference) bool { return known.concerns(tr.name, mode, d) })
			if known >= 0 {
				expected[known]++
				if slices.Equal(with, differences[known].expected(t, without)) {
					occurred[known]++
					continue
				}
			}
			if diff := cmp.Diff(text(without), text(with)); diff != "" {
				t.Errorf("%s, %s: the proxy changes what the ends see, and no documented difference says so "+
					"(-direct +through the proxy):\n%s", mode, d, diff)
			}
		}
	}
	for i, known := range differences {
		if occurred[i] < expected[i] && !known.chance && !t.Failed() {
			t.Errorf("a documented difference is seen on %d of %d ways only: correct the list, and docs/proxy.md.\n"+
				"without the proxy: %s\nthrough the proxy: %s\nbecause: %s",
				occurred[i], expected[i], known.direct, known.proxy, known.reason)
		}
	}
}

func text(lines []string) string { return strings.Join(lines, "\n") }
