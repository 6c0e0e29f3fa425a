// Package e2e holds the tests of Shunt on a real cluster: kubelet, containerd, kube-proxy, scheduler, controllers and
// cert-manager are real, and Shunt is installed as a user does it, from config/default. hack/e2e.sh runs them on a node that
// it makes for them, or in the cluster of KUBECONFIG.
//
// Specs labelled short are those for CI. Specs labelled node look at the node itself, and so run only where hack/node.sh
// made it.
package e2e
