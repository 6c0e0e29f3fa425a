package rules

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const troubleshootingPage = "../../docs/troubleshooting.md"

// The title of the page says how many faults there are. Each has linesOfFault lines.
const (
	faultCount   = 20
	linesOfFault = 8
)

// faultBlocks reads testdata/faults.txt: a group has a line, a fault linesOfFault.
func faultBlocks(t *testing.T) [][]string {
	t.Helper()
	text, err := os.ReadFile("testdata/faults.txt")
	if err != nil {
		t.Fatal(err)
	}
	var blocks [][]string
	faults := 0
	for block := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
		lines := strings.Split(block, "\n")
		group := strings.HasPrefix(lines[0], "## ") && len(lines) == 1
		switch {
		case strings.HasPrefix(lines[0], "# "): // a comment
		case !group && len(lines) != linesOfFault:
			t.Fatalf("%q has %d lines, want %d", lines[0], len(lines), linesOfFault)
		default:
			blocks = append(blocks, lines)
			if !group {
				faults++
			}
		}
	}
	if faults != faultCount {
		t.Fatalf("%d faults, want %d", faults, faultCount)
	}
	return blocks
}

// TestTroubleshootingPage holds docs/troubleshooting.md to the faults that TestFaults makes; with -update it
// writes the page.
func TestTroubleshootingPage(t *testing.T) {
	want := faultsPage(faultBlocks(t))
	got, err := os.ReadFile(troubleshootingPage)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	diff := cmp.Diff(want, string(got))
	switch {
	case diff == "":
	case *update:
		if err := os.WriteFile(troubleshootingPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is not what testdata/faults.txt says; -update writes it (-want +got):\n%s", troubleshootingPage, diff)
	}
}

const faultsPageHead = `# Which way did it go? Twenty faults, by symptom

<!-- Written by go test ./test/rules -run TestTroubleshootingPage -update from test/rules/testdata/faults.txt; change that. -->

Something goes wrong in a pod's network, and the rules look fine. [` + "`shunt trace`" + `](trace.md) follows one connection and
names the rule that decides; [` + "`shunt prove`" + `](prove.md) looks at all connections. Below are twenty faults. A test makes
each of them in a network namespace and expects the lines that stand here, among others. A fault that was made by IPv4 rules
shows as *by IPv6, and not by IPv4*.

` + "`--netns PATH`" + ` is the pod's network namespace, as root on its node; ` + "`--pid PROCESS`" + ` asks for that of a
process. From elsewhere, ` + "`kubectl shunt trace POD` takes the same `--from` and `--to`" + `. In the
examples the pod is 10.0.0.1, its client 10.0.0.9
and a server 192.0.2.1. To *replace the pod* is to delete it: its workload makes a new one, whose rules are made anew.
[Operations](operations.md) has what is not about the way of connections.

`

// faultsPage has a list of all faults by symptom, and a section of each.
func faultsPage(blocks [][]string) string {
	var list, sections strings.Builder
	list.WriteString("| seen | it can be |\n|---|---|\n")
	for _, lines := range blocks {
		if len(lines) == 1 {
			fmt.Fprintf(&list, "| **%s** | |\n", strings.TrimPrefix(lines[0], "## "))
			fmt.Fprintf(&sections, "\n%s\n", lines[0])
			continue
		}
		name, flags, command, connection := lines[0], lines[1], lines[2], lines[3]
		traced, proved, seen, remedy := lines[4], lines[5], lines[6], lines[7]
		title := strings.ToUpper(name[:1]) + name[1:]
		made := "`shunt-init " + flags + "`"
		if command != "true" {
			made += ", then `" + command + "`"
		}
		fmt.Fprintf(&list, "| %s | [%s](#%s) |\n", seen, title, anchor(title))
		fmt.Fprintf(&sections, "\n### %s\n\n%s\n\n", title, seen)
		fmt.Fprintf(&sections, "    shunt trace --netns PATH %s\n        … %s …\n", connection, traced)
		fmt.Fprintf(&sections, "    shunt prove --netns PATH\n        … %s …\n", proved)
		fmt.Fprintf(&sections, "\nWhat to do: %s\n\nThe test makes it with %s.\n", remedy, made)
	}
	return faultsPageHead + list.String() + sections.String()
}

// anchor is the name that GitHub gives to a heading.
func anchor(title string) string {
	return strings.NewReplacer(" ", "-", "'", "", "’", "").Replace(strings.ToLower(title))
}
