// Package e2e takes a real cluster in, installs Shunt as a user does, from
// config/default, and tests it there: kubelet, containerd, kube-proxy, scheduler,
// controllers and cert-manager are real. hack/e2e.sh runs it on a node that it
// makes, or in the cluster of KUBECONFIG.
//
// Specs labelled short are those for CI. Specs labelled node look at the node
// itself, and those labelled agent stop and kill processes there, so they run only
// on a node of hack/node.sh.
package e2e
