package check

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Level is how bad a finding is.
type Level string

// The values of Level.
const (
	OK   Level = "OK"
	Warn Level = "WARN" // to be looked at; pods are treated as they ask for
	Fail Level = "FAIL" // pods go without the proxy, or cannot be created
)

// Kind is what a finding is about. Scripts rely on it.
type Kind string

// The values of Kind.
const (
	NotChecked     Kind = "NotChecked"     // what the user may not read
	Registration   Kind = "Registration"   // the API server knows the webhook
	Settings       Kind = "Settings"       // its settings are those that ship
	Exemptions     Kind = "Exemptions"     // the namespaces that are exempt
	CABundle       Kind = "CABundle"       // API servers trust the certificate
	Certificate    Kind = "Certificate"    // it is valid, and for how long
	Deployment     Kind = "Deployment"     // the webhook's replicas are available
	Configuration  Kind = "Configuration"  // the injector's
	Pods           Kind = "Pods"           // those that are as they should be
	PodNotInjected Kind = "PodNotInjected" // it should have the proxy
	PodOutdated    Kind = "PodOutdated"    // its proxy is from an older version, or from another configuration
	PodDenied      Kind = "PodDenied"      // it could not be created now
	PodUnwanted    Kind = "PodUnwanted"    // it has the proxy and would not get it now
	Agent          Kind = "Agent"          // shunt-node runs where pods wait for it
	PodFailing     Kind = "PodFailing"     // a container of Shunt's does not start, or ended
	WorkloadDenied Kind = "WorkloadDenied" // its pods are not created
	Ignored        Kind = "Ignored"        // labels and annotations that have no effect
)

// KindLevels is a Kind, and the levels that its findings can have.
type KindLevels struct {
	Kind   Kind
	Levels []Level
}

// Kinds returns all values of Kind, in the order of Run.
func Kinds() []KindLevels {
	return []KindLevels{
		{NotChecked, []Level{Warn}},
		{Registration, []Level{OK, Fail}},
		{Settings, []Level{OK, Warn}},
		{Exemptions, []Level{OK, Warn}},
		{Certificate, []Level{OK, Warn, Fail}},
		{CABundle, []Level{OK, Fail}},
		{Deployment, []Level{OK, Warn, Fail}},
		{Configuration, []Level{OK, Warn, Fail}},
		{Pods, []Level{OK}},
		{PodNotInjected, []Level{Fail}},
		{PodOutdated, []Level{Warn}},
		{PodDenied, []Level{Warn, Fail}},
		{PodUnwanted, []Level{Warn}},
		{Agent, []Level{OK, Warn, Fail}},
		{PodFailing, []Level{Warn, Fail}},
		{WorkloadDenied, []Level{Fail}},
		{Ignored, []Level{Warn, Fail}},
	}
}

// Finding is one line of the report.
type Finding struct {
	Level   Level  `json:"level"`
	Kind    Kind   `json:"check"`
	Object  string `json:"object"` // Kind/name, or Kind/namespace/name
	Message string `json:"message"`
}

// Failed returns the number of findings of level Fail.
func Failed(findings []Finding) int {
	failed := slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool { return f.Level != Fail })
	return len(failed)
}

// report collects findings.
type report struct {
	findings []Finding
	workloads
	again map[podFault]*repeated
}

// podFault is what pods of one workload can have in common.
type podFault struct {
	kind  Kind
	level Level
	owner string
	cause string
}

// repeated counts the pods that a finding stands for, beside its own.
type repeated struct{ finding, more int }

func newReport(s Snapshot) *report {
	return &report{workloads: newWorkloads(s.Workloads), again: map[podFault]*repeated{}}
}

func (r *report) add(level Level, kind Kind, object, format string, args ...any) {
	r.findings = append(r.findings, Finding{level, kind, object, fmt.Sprintf(format, args...)})
}

// addPod adds a finding about a pod. If another pod of its workload has it for the
// same cause, it only counts.
func (r *report) addPod(level Level, kind Kind, pod *corev1.Pod, cause, message string) {
	fault := podFault{kind, level, r.of(pod), cause}
	if before, known := r.again[fault]; known {
		before.more++
		return
	}
	r.again[fault] = &repeated{finding: len(r.findings)}
	r.add(level, kind, reference("Pod", pod.Namespace, pod.Name), "%s", message)
}

// mostTold is how many findings of a kind and level are told. A cluster can have
// one for each of its workloads.
const mostTold = 100

// told returns the findings, of which each stands for all like it, and as many as
// can be read.
func (r *report) told() []Finding {
	for fault, n := range r.again {
		if n.more > 0 {
			r.findings[n.finding].Message += fmt.Sprintf("; and %d more of %s", n.more, fault.owner)
		}
	}
	type class struct {
		kind  Kind
		level Level
	}
	count := map[class]int{}
	var told []Finding
	for _, f := range r.findings {
		of := class{f.Kind, f.Level}
		if count[of]++; count[of] <= mostTold {
			told = append(told, f)
		}
	}
	for _, kind := range Kinds() {
		for _, level := range kind.Levels {
			if more := count[class{kind.Kind, level}] - mostTold; more > 0 {
				told = append(told, Finding{level, kind.Kind, "*", fmt.Sprintf("and %d more; -n NAMESPACE checks one namespace", more)})
			}
		}
	}
	return told
}
