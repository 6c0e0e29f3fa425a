// Package agent sets pods' network namespaces up from the node: the container
// runtime's sandboxes flow in through NRI, with the arguments that the injector left
// in an annotation, and rules, a receipt for the pod's gate, Events and metrics flow
// out.
//
// plugin.go is NRI's side, agent.go decides what is done and when, and setup.go does
// it in one namespace.
package agent
