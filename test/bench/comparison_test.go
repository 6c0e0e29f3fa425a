package bench_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/test/bench"
)

// samples are of rounds of one second, in which so many requests were made
// at 10 µs each of the proxy's CPU time.
func samples(requests ...int64) []bench.Sample {
	var all []bench.Sample
	for _, n := range requests {
		all = append(all, bench.Sample{
			Requests: n, Bytes: n * 1e6, Took: time.Second, CPU: time.Duration(n) * 10 * time.Microsecond,
		})
	}
	return all
}

func TestProxiedTables(t *testing.T) {
	way := func(name string, kept, throughput, fresh []bench.Sample) bench.Way {
		return bench.Way{Name: name, Samples: bench.Samples{bench.KeptOpen: kept, bench.Throughput: throughput, bench.New: fresh}}
	}
	direct := way("direct", samples(8000, 8000, 8000), samples(200, 200, 200), samples(1000, 1000, 1000))
	for _, all := range direct.Samples {
		for i := range all {
			all[i].CPU = 0
		}
	}
	// The second round met a busy machine, and the third a stall.
	tproxy := way(bench.TProxy, samples(1700, 850, 1700), samples(90, 45, 90), samples(69, 34, 0))
	tproxy.Samples[bench.New][2].Retransmits = 64
	tproxy.Samples[bench.New][0].Tracked, tproxy.Samples[bench.New][1].Tracked = 138, 171
	tproxy.Samples[bench.New][1].CPU *= 2
	redirect := way(bench.Redirect, samples(1800, 1000, 1900), samples(100, 50, 100), samples(80, 50, 86))
	stateless := way(bench.NoConntrack, samples(1900, 950, 1880), samples(100, 50, 100), samples(90, 45, 90))
	all := []bench.Proxied{{
		Proxy: "P", Direct: direct,
		Explicit: way(bench.Explicit, samples(2000, 1000, 2000), samples(100, 50, 100), samples(100, 50, 100)),
		Ways:     []bench.Way{redirect, tproxy, stateless},
	}}
	want := `
| proxy | way | requests/s | of explicit | CPU µs | MB/s | of explicit | new connections/s | of explicit | CPU µs | SYNs again | tracked |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
| P | direct | 8000 | 4.00 |  | 200 | 2.00 | 1000 | 10.00 |  | 0 | 0 |
| P | explicit proxy | 2000 | 1.00 | 10.0 | 100 | 1.00 | 100 | 1.00 | 10.0 | 0 | 0 |
| P | REDIRECT | 1800 | 0.95 | 10.0 | 100 | 1.00 | 80 | 0.86 | 10.0 | 0 | 0 |
| P | TPROXY | 1700 | 0.85 | 10.0 | 90 | 0.90 | 34 | 0.68 | 20.0 | 64 | 171 |
| P | TPROXY without conntrack | 1880 | 0.95 | 10.0 | 100 | 1.00 | 90 | 0.90 | 10.0 | 0 | 0 |
`
	if diff := cmp.Diff(want, "\n"+bench.ProxiedTable(all)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	want = `| proxy | way | work | of | at least | rate | by CPU | |
|---|---|---|---|--:|--:|--:|---|
| P | REDIRECT | kept-open | explicit proxy | 0.90 | 0.950 | 1.000 | met |
| P | REDIRECT | new | explicit proxy | 0.85 | 0.860 | 1.000 | met |
| P | TPROXY | kept-open | explicit proxy | 0.85 | 0.850 | 1.000 | met |
| P | TPROXY | new | explicit proxy | 0.70 | 0.680 | 0.500 | missed |
| P | TPROXY without conntrack | kept-open | explicit proxy | 0.90 | 0.950 | 1.000 | met |
| P | TPROXY without conntrack | new | explicit proxy | 0.88 | 0.900 | 1.000 | met |
| P | TPROXY without conntrack | kept-open | REDIRECT | 1.00 | 0.989 | 1.000 | missed |
| P | TPROXY without conntrack | new | REDIRECT | 1.00 | 1.047 | 1.000 | met |
`
	if diff := cmp.Diff(want, bench.BarsTable(all)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRuleCostTable(t *testing.T) {
	got := bench.RuleCostTable([]string{"nft", "legacy"}, []bench.RuleCost{
		{Rule: "`-p udp`", Met: "passes by", Cost: map[string]float64{"nft": 13.4, "legacy": 3.6}},
	})
	want := "| rule, or table | a packet | nft ns | legacy ns |\n|---|---|--:|--:|\n| `-p udp` | passes by | 13 | 4 |\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
