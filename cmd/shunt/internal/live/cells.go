package live

import (
	"fmt"
	"strings"
)

// Lines returns what is said of the pod before the tables: names and values. flags
// are for the command that replaces it.
func (e Explanation) Lines(flags string) [][2]string {
	lines := [][2]string{{"pod", e.Namespace + "/" + e.Name}}
	if e.Workload.Kind != "Pod" {
		lines = append(lines, [2]string{"workload", e.Workload.String()})
	}
	proxy := "no"
	if e.Proxy {
		proxy = fmt.Sprintf("yes: mode %s, revision %s, injected by Shunt %s", known(e.Mode), known(e.Revision), known(e.Version))
	}
	lines = append(lines, [2]string{"proxy", proxy})
	if e.DecidedBy != "" {
		lines = append(lines, [2]string{"decided by", printable(e.DecidedBy)})
	}
	lines = append(lines, [2]string{string(e.State), e.Sentence})
	for _, err := range e.Errors {
		lines = append(lines, [2]string{"error", err})
	}
	if command := e.Workload.RestartCommand(flags); command != "" && (e.State == Outdated || e.State == Missing || e.State == Unwanted) {
		lines = append(lines, [2]string{"to do", command})
	}
	lines = append(lines, [2]string{"configuration", e.Configuration})
	for _, warning := range e.Warnings {
		lines = append(lines, [2]string{"warning", warning})
	}
	for i := range lines {
		lines[i][1] = oneLine(lines[i][1])
	}
	return lines
}

// oneLine joins the lines of an error.
func oneLine(text string) string { return strings.Join(strings.Split(text, "\n"), "; ") }

// known prints a value that an older version may not have recorded.
func known(text string) string {
	if text == "" {
		return "unknown"
	}
	return printable(text)
}

// ChangeCells returns the rows of the table of Changes.
func (e Explanation) ChangeCells() [][]string {
	var rows [][]string
	for _, change := range e.Changes {
		rows = append(rows, []string{change.Setting, orNone(change.Was), orNone(change.Now)})
	}
	return rows
}

// ContainerCells returns the rows of the table of Containers.
func (e Explanation) ContainerCells() [][]string {
	var rows [][]string
	for _, c := range e.Containers {
		rows = append(rows, []string{c.Name, printable(c.State), fmt.Sprint(c.Ready), fmt.Sprint(c.Restarts), orNone(c.Last)})
	}
	return rows
}

// SettingHeader is the header of the table of Settings.
func (e Explanation) SettingHeader() string {
	if e.State == UpToDate {
		return "SETTING"
	}
	return "SETTING OF A NEW POD"
}
