package bench

import (
	"fmt"
	"strings"
)

// RuleCost is what rules of one kind were measured to cost.
type RuleCost struct {
	Rule string             // or what else
	Met  string             // what becomes of the packet at it
	Cost map[string]float64 // ns for each packet and rule, by backend
}

// RuleCostTable prints costs as a Markdown table, a column for each backend.
func RuleCostTable(backends []string, costs []RuleCost) string {
	var b strings.Builder
	b.WriteString("| rule, or table | a packet | " + strings.Join(backends, " ns | ") + " ns |\n")
	b.WriteString("|---|---|" + strings.Repeat("--:|", len(backends)) + "\n")
	for _, c := range costs {
		fmt.Fprintf(&b, "| %s | %s |", c.Rule, c.Met)
		for _, backend := range backends {
			fmt.Fprintf(&b, " %.0f |", c.Cost[backend])
		}
		b.WriteString("\n")
	}
	return b.String()
}

// Median is the middle one of some values.
func Median(values []float64) float64 { return median(values) }
