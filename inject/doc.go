// Package inject decides whether a pod gets a proxy, and injects it. A pod, its
// namespace and a Config flow in. A Result flows out: the injected pod with its
// JSON patch, the Reason why the pod is skipped, or every field for which it is
// denied.
//
// The package is pure: it has no clock, logger or I/O, and never changes the pod
// that flows in. Each of these packages imports only those behind it:
//
//	inject            the decision (decide.go, with its truth table) and conflicts
//	inject/sidecar    the containers
//	inject/annotation what pods and namespaces ask for
//	inject/config     cluster-wide settings
//	inject/podplan    the plan and its units: what an injection changes in a pod
//	inject/strict     strict decoding and bounded lists of faults
package inject

//go:generate go test -count=1 -run ^TestAnnotationsPage$ . -update
