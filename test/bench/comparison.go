package bench

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Work is what a load generator does.
type Work string

// The kinds of work.
const (
	KeptOpen   Work = "kept-open" // small requests, one after the other on connections that are kept open
	Throughput Work = "throughput"
	New        Work = "new" // a connection for each small request
)

// Works are all of them, in the order in which they are done.
var Works = []Work{KeptOpen, Throughput, New}

// Sample is what was done in one go.
type Sample struct {
	Requests    int64
	Bytes       int64
	Took        time.Duration
	CPU         time.Duration // of the proxy
	Retransmits int64         // of SYN, at either end of a connection: each is one that stalled for a second or more
	Tracked     int64         // entries that conntrack has in the pod afterwards
}

// rate is what the work is measured in: MB/s for throughput, and requests/s,
// which are as many connections/s where each is a new one.
func (s Sample) rate(w Work) float64 {
	if w == Throughput {
		return float64(s.Bytes) / 1e6 / s.Took.Seconds()
	}
	return float64(s.Requests) / s.Took.Seconds()
}

// cost is the proxy's CPU time in microseconds for each unit of the work: a
// request, a connection, or a megabyte. Where nothing was done it is infinite.
func (s Sample) cost(w Work) float64 {
	if s.Requests == 0 {
		return math.Inf(1)
	}
	return float64(s.CPU.Microseconds()) / (s.rate(w) * s.Took.Seconds())
}

// Samples are those of one way, of each kind of work, round by round.
type Samples map[Work][]Sample

// Way is a way from the client to the app.
type Way struct {
	Name    string
	Samples Samples
}

// Proxied is what was measured of one proxy. Ways of the same round were
// measured one right after the other.
type Proxied struct {
	Proxy    string
	Direct   Way
	Explicit Way // the limit: the proxy, and no interception
	Ways     []Way
}

// ratios are the medians of what each round says: the rate of a way in that of
// another, and what the other's CPU would do it for.
func (way Way) ratios(of Way, w Work) (rate, cpu float64) {
	var rates, costs []float64
	for i, s := range way.Samples[w] {
		other := of.Samples[w][i]
		rates = append(rates, s.rate(w)/other.rate(w))
		costs = append(costs, other.cost(w)/s.cost(w))
	}
	return median(rates), median(costs)
}

// Ratio is how much of the explicit proxy's rate a way has.
func (p Proxied) Ratio(way Way, w Work) float64 {
	rate, _ := way.ratios(p.Explicit, w)
	return rate
}

func median[T cmp.Ordered](all []T) T {
	slices.Sort(all)
	return all[len(all)/2]
}

func medianOf(all []Sample, of func(Sample) float64) float64 {
	var values []float64
	for _, s := range all {
		values = append(values, of(s))
	}
	return median(values)
}

// ProxiedTable prints the rates of all ways as a Markdown table.
func ProxiedTable(all []Proxied) string {
	var b strings.Builder
	b.WriteString("| proxy | way | requests/s | of explicit | CPU µs | MB/s | of explicit ")
	b.WriteString("| new connections/s | of explicit | CPU µs | SYNs again | tracked |\n|---|---|" + strings.Repeat("--:|", 10) + "\n")
	for _, p := range all {
		for _, way := range slices.Concat([]Way{p.Direct, p.Explicit}, p.Ways) {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", p.Proxy, way.Name, strings.Join(p.cells(way), " | "))
		}
	}
	return b.String()
}

func (p Proxied) cells(way Way) []string {
	var cells []string
	for _, w := range Works {
		samples := way.Samples[w]
		cells = append(cells,
			fmt.Sprintf("%.0f", medianOf(samples, func(s Sample) float64 { return s.rate(w) })),
			fmt.Sprintf("%.2f", p.Ratio(way, w)))
		if w == Throughput {
			continue
		}
		cost := medianOf(samples, func(s Sample) float64 { return s.cost(w) })
		if cost == 0 { // no proxy
			cells = append(cells, "")
		} else {
			cells = append(cells, fmt.Sprintf("%.1f", cost))
		}
	}
	again, tracked := int64(0), int64(0)
	for _, s := range way.Samples[New] {
		again += s.Retransmits
		tracked = max(tracked, s.Tracked)
	}
	return append(cells, fmt.Sprint(again), fmt.Sprint(tracked))
}

// bar is the least that a way must have of the rate of another.
type bar struct {
	way, of string
	work    Work
	least   float64
}

// Names of the ways that have bars.
const (
	Explicit    = "explicit proxy"
	Redirect    = "REDIRECT"
	TProxy      = "TPROXY"
	NoConntrack = "TPROXY without conntrack"
)

var bars = []bar{
	{Redirect, Explicit, KeptOpen, 0.9},
	{Redirect, Explicit, New, 0.85},
	{TProxy, Explicit, KeptOpen, 0.85},
	{TProxy, Explicit, New, 0.7},
	{NoConntrack, Explicit, KeptOpen, 0.9},
	{NoConntrack, Explicit, New, 0.88},
	{NoConntrack, Redirect, KeptOpen, 1},
	{NoConntrack, Redirect, New, 1},
}

// BarsTable prints how the ways stand to what is asked of them.
func BarsTable(all []Proxied) string {
	var b strings.Builder
	b.WriteString("| proxy | way | work | of | at least | rate | by CPU | |\n|---|---|---|---|--:|--:|--:|---|\n")
	for _, p := range all {
		ways := map[string]Way{p.Explicit.Name: p.Explicit}
		for _, way := range p.Ways {
			ways[way.Name] = way
		}
		for _, bar := range bars {
			way, measured := ways[bar.way]
			of, against := ways[bar.of]
			if !measured || !against {
				continue
			}
			rate, cpu := way.ratios(of, bar.work)
			verdict := "met"
			if rate < bar.least {
				verdict = "missed"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %.2f | %.3f | %.3f | %s |\n",
				p.Proxy, bar.way, bar.work, bar.of, bar.least, rate, cpu, verdict)
		}
	}
	return b.String()
}
