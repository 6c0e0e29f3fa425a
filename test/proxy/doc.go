// Package proxy holds the suite that needs a real Envoy: it starts the sidecar
// of injected pods with the very command line, user and capabilities that the
// injector wrote.
//
// The binary's path is in the environment variable ENVOY; `make test-proxy`
// sets it.
package proxy
