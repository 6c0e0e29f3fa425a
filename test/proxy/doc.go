// Package proxy takes pods as the injector makes them in, starts each as kubelet
// would, shunt-init and then the sidecar, with the very command lines, users and
// capabilities of the pod, and sends real traffic through real proxies: Envoy,
// HAProxy and mitmproxy.
//
//	pod_linux_test.go      a running pod
//	way_linux_test.go      a way through its proxy, both ends recorded and found in the log
//	proof_linux_test.go    which proxy serves which system, and the checks that each passes
//	samples_linux_test.go  the other proxies of config/samples
//
// The environment variables ENVOY and MITMDUMP hold the paths of Envoy and
// mitmproxy; HAProxy is on PATH. `make test-proxy` provides all of them.
package proxy
