//go:build linux

package agent

import (
	"fmt"

	"github.com/containerd/nri/pkg/api"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// pod is one sandbox of the container runtime.
type pod struct {
	namespace, name, uid string
	sandbox              string // its id
	netns                string // path of its network namespace; empty for the node's own
	text                 string // of the annotation
}

func (p pod) String() string { return p.namespace + "/" + p.name }

// podOf returns what a sandbox of NRI is for the agent. wanted is false if nobody
// asks the agent to do anything.
func podOf(sandbox *api.PodSandbox) (p pod, wanted bool) {
	text, wanted := sandbox.GetAnnotations()[podplan.RulesKey]
	p = pod{
		namespace: sandbox.GetNamespace(), name: sandbox.GetName(), uid: sandbox.GetUid(), sandbox: sandbox.GetId(), text: text,
	}
	for _, ns := range sandbox.GetLinux().GetNamespaces() {
		if ns.GetType() == "network" {
			p.netns = ns.GetPath()
		}
	}
	return p, wanted
}

// rules reads the annotation. Anybody who makes pods where no injector sees them may
// have written it, so the agent does what it says to the pod's own network namespace,
// and to nothing else. The gate of an injected pod checks that it is what the injector
// wrote.
func (p pod) rules() (interception.NodeRules, error) {
	if p.netns == "" {
		return interception.NodeRules{}, fmt.Errorf(
			"annotation %s: the pod has the node's own network, or the runtime does not tell its namespace; accepted: none on such a pod",
			podplan.RulesKey)
	}
	rules, err := interception.ParseNodeRules(p.text)
	if err != nil {
		// The text may be all in the error, which goes into logs and to the runtime.
		return interception.NodeRules{}, fmt.Errorf("annotation %s: %s", podplan.RulesKey, clip(err.Error()))
	}
	return rules, nil
}
