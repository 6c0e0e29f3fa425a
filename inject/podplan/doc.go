// Package podplan changes pods: a plan and a pod flow in, the injected pod and
// its JSON patch flow out; from an injected pod, the original flows out.
//
// A Plan consists of units, a file for each: containers, volumes, probes,
// sysctls, pull secrets, resources and annotations. A unit plans what it adds,
// applies it, records it in the status annotation, undoes it by that record, and
// compares a pod with the plan. Whatever injects, restores or checks a pod goes
// through the units. An Edit makes their changes on the pod and as a JSON patch
// at the same time, so that the two do not differ.
package podplan
