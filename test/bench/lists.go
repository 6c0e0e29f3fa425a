package bench

import (
	"fmt"
	"strings"
	"time"
)

// ListCost is what a list of prefixes was measured to cost in one backend.
type ListCost struct {
	Backend    string
	Prefixes   int
	Install    Rounds          // of shunt-init
	Connection []time.Duration // CPU time of opening and closing one, a measurement each
}

// ListTable prints costs as a Markdown table, a row for each length.
func ListTable(backends []string, costs []ListCost) string {
	var b strings.Builder
	b.WriteString("| ranges |")
	for _, what := range []string{"install, CPU ms", "a connection, µs"} {
		for _, backend := range backends {
			fmt.Fprintf(&b, " %s: %s |", what, backend)
		}
	}
	b.WriteString("\n|--:|" + strings.Repeat("--:|", 2*len(backends)) + "\n")
	rows := map[int]map[string]ListCost{}
	var lengths []int
	for _, c := range costs {
		if rows[c.Prefixes] == nil {
			rows[c.Prefixes] = map[string]ListCost{}
			lengths = append(lengths, c.Prefixes)
		}
		rows[c.Prefixes][c.Backend] = c
	}
	for _, n := range lengths {
		fmt.Fprintf(&b, "| %d |", n)
		for _, backend := range backends {
			fmt.Fprintf(&b, " %.1f |", Milliseconds(rows[n][backend].Install.CPU()))
		}
		for _, backend := range backends {
			fmt.Fprintf(&b, " %.1f |", rows[n][backend].connection())
		}
		b.WriteString("\n")
	}
	return b.String()
}

// connection is the median of the connections, in microseconds.
func (c ListCost) connection() float64 {
	var all []float64
	for _, d := range c.Connection {
		all = append(all, float64(d)/float64(time.Microsecond))
	}
	return median(all)
}
