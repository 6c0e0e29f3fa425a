//go:build linux

package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// printTable prints the connections, and then what the proxy logged of each.
func printTable(out io.Writer, rows []row) {
	fmt.Fprintln(out)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "#\tMODE\tPATH\tPROXY'S LISTENER\tSOURCE ADDRESS SEEN\tBY\tAS WANTED")
	for i, r := range rows {
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n",
			i+1, r.mode, r.path, r.listenerText(), r.sourceText(), r.seenBy, r.verdict())
	}
	_ = table.Flush()
	fmt.Fprintln(out, "\nThe proxy's access log of them, by number:")
	for i, r := range rows {
		if r.log != "" {
			fmt.Fprintf(out, "%d: %s\n", i+1, r.log)
		}
	}
	fmt.Fprintln(out)
}

func (r row) listenerText() string {
	if r.listener == "" {
		return "none: direct"
	}
	return r.listener
}

func (r row) sourceText() string {
	if !r.source.IsValid() {
		return "none"
	}
	return r.source.Addr().String()
}

func (r row) verdict() string {
	if r.err == nil {
		return "yes"
	}
	return "NO: " + strings.ReplaceAll(r.err.Error(), "\n", "; ")
}

func countWrong(rows []row) int {
	wrong := 0
	for _, r := range rows {
		if r.err != nil {
			wrong++
		}
	}
	return wrong
}
