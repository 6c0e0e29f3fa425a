// Package proxy holds the suite that needs real proxies, Envoy, HAProxy and
// mitmproxy: it starts injected pods as a kubelet would, shunt-init and then the
// sidecar, with the very command lines, users and capabilities that the injector
// wrote, and sends real traffic through them.
//
//	pod_linux_test.go      a pod at work
//	way_linux_test.go      a way through its proxy, both ends noted and found in the log
//	proof_linux_test.go    which proxy serves which system, and the checks that each passes
//	samples_linux_test.go  the other proxies of config/samples
//
// The paths of Envoy and mitmproxy are in the environment variables ENVOY and
// MITMDUMP, and HAProxy is found by PATH; `make test-proxy` sees to all.
package proxy
