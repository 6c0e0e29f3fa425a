// Package inject decides whether a pod gets a proxy, plans what that takes, and
// puts it in: a pod, what matters of its namespace and a Config flow in, and a
// Result flows out. That is the injected pod with its JSON patch, the Reason why
// the pod is left alone, or every field for which it is denied.
//
// All of it is pure: no clock, no logger, no I/O, and the pod that flows in is
// never changed. The packages below, each of which imports only those behind it:
//
//	inject            the decision (decide.go, with its truth table) and what stands in its way
//	inject/sidecar    the containers
//	inject/annotation what pods and namespaces ask for
//	inject/config     cluster-wide settings
//	inject/podplan    the plan and its units: what an injection changes in a pod
//	inject/strict     strict decoding, and faults that have an end
package inject

//go:generate go test -count=1 -run ^TestAnnotationsPage$ . -update
