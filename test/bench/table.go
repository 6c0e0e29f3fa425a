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
	CPU, Wall time.Duration
}

// Table prints results as a Markdown table, with the ratio of the CPU time of
// each to that of the way named floor in the same setting; "-" where that was
// not measured.
func Table(results []Result, floor string) string {
	var b strings.Builder
	b.WriteString("| rules | way | processes | CPU ms | of the floor | wall ms |\n|---|---|--:|--:|--:|--:|\n")
	for _, r := range results {
		ratio := "-"
		i := slices.IndexFunc(results, func(f Result) bool { return f.Setting == r.Setting && f.Way == floor })
		if i >= 0 && results[i].CPU > 0 {
			ratio = fmt.Sprintf("%.2f", float64(r.CPU)/float64(results[i].CPU))
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %.1f | %s | %.1f |\n", r.Setting, r.Way, r.Processes, Milliseconds(r.CPU), ratio, Milliseconds(r.Wall))
	}
	return b.String()
}

// Median returns the middle one of some durations, the upper one of two; it
// panics without any.
func Median(durations []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(durations))[len(durations)/2]
}

// Milliseconds is a duration as a number.
func Milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
