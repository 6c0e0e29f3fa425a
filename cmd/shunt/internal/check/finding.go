package check

import (
	"fmt"
	"slices"
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
	PodRefused     Kind = "PodRefused"     // it could not be created now
	PodUnwanted    Kind = "PodUnwanted"    // it has the proxy and would not get it now
)

// KindLevels is a Kind, and the levels that its findings can have.
type KindLevels struct {
	Kind   Kind
	Levels []Level
}

// Kinds returns all values of Kind, in the order of Run.
func Kinds() []KindLevels {
	return []KindLevels{
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
		{PodRefused, []Level{Warn, Fail}},
		{PodUnwanted, []Level{Warn}},
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
type report struct{ findings []Finding }

func (r *report) add(level Level, kind Kind, object, format string, args ...any) {
	r.findings = append(r.findings, Finding{level, kind, object, fmt.Sprintf(format, args...)})
}
