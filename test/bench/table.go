package bench

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Result is what one way to install the rules of one setting cost.
type Result struct {
	Setting   string // backend, mode and families, such as "nft TPROXY dual"
	Way       string // how the rules were installed
	Processes int    // programs that were run, the first one included
	Rounds    Rounds
}

// Round is one measurement.
type Round struct {
	CPU, Wall time.Duration // of the way
	Floor     time.Duration // CPU time of the bare iptables-restore right before it
}

// Rounds are the measurements of one way, at least one.
type Rounds []Round

// CPU returns the median of the CPU times.
func (r Rounds) CPU() time.Duration {
	return r.median(func(one Round) time.Duration { return one.CPU })
}

// Wall returns the median of the times from start to end.
func (r Rounds) Wall() time.Duration {
	return r.median(func(one Round) time.Duration { return one.Wall })
}

// Ratio returns how often the floor's CPU time fits into that of the way.
func (r Rounds) Ratio() float64 {
	return float64(r.CPU()) / float64(r.median(func(one Round) time.Duration { return one.Floor }))
}

func (r Rounds) median(of func(Round) time.Duration) time.Duration {
	var all []time.Duration
	for _, one := range r {
		all = append(all, of(one))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// Table prints results as a Markdown table.
func Table(results []Result) string {
	var b strings.Builder
	b.WriteString("| rules | way | processes | CPU ms | of the floor | wall ms |\n|---|---|--:|--:|--:|--:|\n")
	for _, r := range results {
		fmt.Fprintf(&b, "| %s | %s | %d | %.1f | %.2f | %.1f |\n",
			r.Setting, r.Way, r.Processes, Milliseconds(r.Rounds.CPU()), r.Rounds.Ratio(), Milliseconds(r.Rounds.Wall()))
	}
	return b.String()
}

// Milliseconds is a duration as a number.
func Milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
