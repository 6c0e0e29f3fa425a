// Package podplan changes pods: a plan and a pod flow in, the injected pod and
// the JSON patch that makes it flow out; from an injected pod, the pod as it
// was.
//
// A Plan consists of units, a file for each: containers, volumes, probes,
// sysctls, pull secrets, resources and annotations. A unit knows all there is
// to know of what it puts in: how to plan it, put it in, record it in the
// status annotation, take it out again by that record, and tell whether a pod
// still has it as planned. Whatever injects, restores or checks a pod goes
// through the units. An Edit carries out their changes, on the pod and as a
// JSON patch at the same time, so that the two cannot differ.
package podplan
