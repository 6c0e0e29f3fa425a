// Package sidecar makes the two containers that a pod gets: a Request and the
// Config that holds for the pod flow in, shunt-init's container, the proxy's and
// their volumes flow out, or every fault of what the pod asks for them.
//
// envoy.go is the proxy by default, custom.go the configuration's own, and
// templates.go merges templates over either. validate.go finds what in a
// configuration would break the data path.
package sidecar
