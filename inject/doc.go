// Package inject decides whether a pod gets a proxy, plans what that takes,
// and puts it in.
//
// A pod, what matters of its namespace, and a Config flow in; a Result flows
// out: the pod injected, the Reason why it was left alone, or every field that
// stands in the way. All of it is pure: no clock, no logger, no I/O, and the
// pod that flows in is never changed.
//
// The order of reading is the order of flow: annotations.go (what a user may
// ask for, one table), decide.go (may this pod be injected), plan.go with
// initcontainer.go and sidecar.go (what goes where; envoy.go and custom.go are
// the two kinds of sidecar), apply.go (put it in). injector.go runs it.
package inject

//go:generate go test -count=1 -run ^TestAnnotationsPage$ . -update
