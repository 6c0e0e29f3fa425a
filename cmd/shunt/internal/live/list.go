package live

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/check"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
)

// Row is one workload of List.
type Row struct {
	Workload

	// Pods are those that have not ended, and Proxies are those of them that have
	// the proxy.
	Pods    int `json:"pods"`
	Proxies int `json:"proxies"`
	// Modes, Versions and DecidedBy are those of its pods, each once.
	Modes     []string `json:"modes"`
	Versions  []string `json:"versions"`
	DecidedBy []string `json:"decidedBy"`
	// States counts the pods by State.
	States map[State]int `json:"states"`
}

// List returns the workloads whose pods have the proxy or should have it, and those
// of namespaces that ask for it; or of all workloads, if all is set.
func List(s check.Snapshot, all bool) []Row {
	j := newJudge(s)
	asking := map[string]bool{}
	for name := range j.namespaces {
		ns := j.namespace(name)
		asking[name] = slices.ContainsFunc(j.shunts, func(s shunt) bool { return s.wants(ns) })
	}
	rows := map[Workload]*Row{}
	for i := range s.Pods {
		pod := &s.Pods[i]
		if _, known := j.namespaces[pod.Namespace]; !known || inject.Ended(pod) {
			continue
		}
		v := j.pod(pod)
		if !all && v.state == NoProxy && !asking[pod.Namespace] {
			continue
		}
		workload := WorkloadOf(pod)
		row := rows[workload]
		if row == nil {
			row = &Row{Workload: workload, States: map[State]int{}, Modes: []string{}, Versions: []string{}, DecidedBy: []string{}}
			rows[workload] = row
		}
		row.Pods++
		row.States[v.state]++
		if v.has {
			row.Proxies++
			row.Modes, row.Versions = once(row.Modes, v.mode(pod)), once(row.Versions, v.status.InjectorVersion)
		}
		if v.shunt != nil {
			row.DecidedBy = once(row.DecidedBy, v.shunt.injector.DecidedBy(pod, j.namespace(pod.Namespace)))
		}
	}
	sorted := make([]Row, 0, len(rows))
	for _, row := range rows {
		sorted = append(sorted, *row)
	}
	slices.SortFunc(sorted, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return sorted
}

// once adds a value to a sorted list unless it is there, or empty.
func once(values []string, value string) []string {
	at, there := slices.BinarySearch(values, value)
	if there || value == "" {
		return values
	}
	return slices.Insert(values, at, value)
}

// Columns are the headers of Cells.
var Columns = []string{"NAMESPACE", "WORKLOAD", "PODS", "PROXIES", "MODE", "VERSION", "UP TO DATE", "DECIDED BY"}

// Cells returns the row of a table.
func (r Row) Cells() []string {
	return []string{
		r.Namespace, r.String(), fmt.Sprint(r.Pods), fmt.Sprint(r.Proxies), joined(r.Modes), joined(r.Versions),
		r.upToDate(), joined(r.DecidedBy),
	}
}

func joined(values []string) string {
	printed := make([]string, len(values))
	for i, value := range values {
		printed[i] = printable(value)
	}
	return orNone(strings.Join(printed, ", "))
}

// words say in a few words what the pods of a state are.
var words = []struct {
	state State
	word  string
}{
	{Denied, "would be denied"}, {Missing, "without the proxy"}, {Outdated, "outdated"}, {Unwanted, "would not get it now"},
}

func (r Row) upToDate() string {
	var found []string
	for _, known := range words {
		if count := r.States[known.state]; count > 0 {
			found = append(found, fmt.Sprintf("%d %s", count, known.word))
		}
	}
	switch {
	case len(found) > 0:
		return "no: " + strings.Join(found, ", ")
	case r.States[Unknown] > 0:
		return "not known"
	case r.States[UpToDate] > 0:
		return "yes"
	default:
		return "-"
	}
}

// Restarts returns a line for each workload of which a pod would be another one now:
// the command that replaces its pods, or a comment. flags are for each command.
func Restarts(rows []Row, flags string) []string {
	var lines []string
	for _, row := range rows {
		stale := row.States[Missing] + row.States[Outdated] + row.States[Unwanted]
		command := row.RestartCommand(flags)
		about := fmt.Sprintf("# %s in namespace %s: ", row.String(), row.Namespace)
		switch {
		case row.States[Denied] > 0:
			lines = append(lines, about+"a new pod would be denied; see shunt explain")
		case stale == 0:
		case command != "":
			lines = append(lines, command)
		case row.Kind == "Pod":
			lines = append(lines, about+"it has no controller; delete and create it")
		default:
			lines = append(lines, about+"kubectl cannot restart this kind; delete its pods, if it makes new ones")
		}
	}
	return lines
}

// Unknowns says what the user may not read, and the settings of which installation
// are not known, a line each.
func Unknowns(s check.Snapshot) []string {
	lines := unread(s)
	for _, one := range s.Shunts() {
		if !one.Known {
			lines = append(lines, one.Object()+": its settings are not known, so that no pod counts as outdated: "+
				oneLine(cmp.Or(one.Problem, one.Source)))
		}
	}
	return lines
}

// wants reports whether a namespace asks for the proxy in all its pods.
func (s shunt) wants(ns annotation.Namespace) bool {
	return s.injector.Asks(ns) || s.Config.DefaultPolicy == config.PolicyEnabled && s.Selects(&corev1.Pod{}, ns)
}
