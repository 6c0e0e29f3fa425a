package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/strict"
)

// AgentName is the value of the label app.kubernetes.io/name of shunt-node's
// DaemonSet and pods.
const AgentName = "shunt-node"

// Agents are what was read of shunt-node, in all namespaces.
type Agents struct {
	DaemonSets []appsv1.DaemonSet
	Pods       []corev1.Pod
	// Unread is why the user may not list them; nil if they may.
	Unread error
}

// Homes returns the namespaces of shunt-node.
func (a Agents) Homes() []string {
	var names []string
	for i := range a.DaemonSets {
		names = append(names, a.DaemonSets[i].Namespace)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// agents reports whether shunt-node is there for the pods that wait for it, which are
// those of interceptFrom: node.
//
//	a namespace or the configuration asks for it,
//	  and it does not exist                       -> FAIL
//	it is wanted, and none of its pods is ready   -> FAIL
//	not all of its pods are ready                 -> WARN
//	a node without a ready one has pods that wait -> FAIL
//	                    pods that were set up     -> WARN; nobody watches their rules
//
// Askers are the installations whose pods are of interceptFrom: node.
func (r *report) agents(s Snapshot, askers []string) {
	askers, onNode := slices.Concat(askers, namespacesOfAgents(s.Namespaces)), podsOfAgents(s.Pods)
	wanted := len(askers)+len(onNode) > 0
	switch {
	case s.Agents.Unread != nil && wanted:
		r.add(Warn, NotChecked, AgentName, "%v", s.Agents.Unread)
		return
	case len(s.Agents.DaemonSets) == 0 && len(askers) > 0:
		r.add(Fail, Agent, reference(kindDaemonSet, AgentName, AgentName),
			"it does not exist, and pods of interceptFrom: node wait for it: %s; install it with kubectl apply -k config/node, "+
				"or with Helm's node.enabled", bounded(askers))
		return
	}
	level := OK
	for i := range s.Agents.DaemonSets {
		found := &s.Agents.DaemonSets[i]
		status := found.Status
		switch {
		case status.NumberReady == 0 && wanted:
			level = Fail
		case status.NumberReady < status.DesiredNumberScheduled:
			level = Warn
		}
		r.add(level, Agent, reference(kindDaemonSet, found.Namespace, found.Name), "ready on %d of %d nodes",
			status.NumberReady, status.DesiredNumberScheduled)
	}
	r.agentsNotReady(s, level)
	r.nodesWithoutAgent(s, onNode)
}

// bounded joins the first words, and counts the others.
func bounded(words []string) string {
	if more := len(words) - mostChanges; more > 0 {
		words = append(words[:mostChanges:mostChanges], strict.AndMore(more))
	}
	return strings.Join(words, ", ")
}

// namespacesOfAgents returns the namespaces whose pods are to be set up from their
// nodes.
func namespacesOfAgents(all []corev1.Namespace) []string {
	var names []string
	for i := range all {
		if ns := &all[i]; ns.Annotations[annotation.InterceptFromKey] == string(config.InterceptFromNode) {
			names = append(names, "Namespace/"+ns.Name)
		}
	}
	return names
}

// podsOfAgents returns the pods that are set up from their nodes, by node.
func podsOfAgents(pods []corev1.Pod) map[string][]*corev1.Pod {
	found := map[string][]*corev1.Pod{}
	for i := range pods {
		pod := &pods[i]
		if _, has := pod.Annotations[podplan.RulesKey]; has && pod.Spec.NodeName != "" && !inject.Ended(pod) {
			found[pod.Spec.NodeName] = append(found[pod.Spec.NodeName], pod)
		}
	}
	return found
}

// agentsNotReady reports why pods of shunt-node are not ready.
func (r *report) agentsNotReady(s Snapshot, level Level) {
	if level == OK {
		level = Warn
	}
	warnings := newestWarnings(s.Events)
	for i := range s.Agents.Pods {
		pod := &s.Agents.Pods[i]
		if pod.DeletionTimestamp != nil || ready(*pod) {
			continue
		}
		cause, message := whyNotReady(pod, warnings[reference("Pod", pod.Namespace, pod.Name)])
		if message != "" {
			r.addPod(level, Agent, pod, cause, fmt.Sprintf("on Node/%s: %s", pod.Spec.NodeName, message))
		}
	}
}

// nodesWithoutAgent reports nodes with pods that shunt-node sets up, or has set up,
// and without a ready pod of its own.
func (r *report) nodesWithoutAgent(s Snapshot, onNode map[string][]*corev1.Pod) {
	covered := sets.Set[string]{}
	for _, pod := range s.Agents.Pods {
		if ready(pod) {
			covered.Insert(pod.Spec.NodeName)
		}
	}
	for _, node := range slices.Sorted(maps.Keys(onNode)) {
		if covered.Has(node) {
			continue
		}
		waiting := slices.DeleteFunc(slices.Clone(onNode[node]), passedGate)
		if len(waiting) == 0 {
			r.add(Warn, Agent, "Node/"+node, "it has no ready pod of shunt-node; pods there whose rules nobody watches: %d",
				len(onNode[node]))
			continue
		}
		r.add(Fail, Agent, "Node/"+node, "it has no ready pod of shunt-node; pods there that wait for it: %d, such as %s; see the "+
			"DaemonSet's nodeSelector and its pod there", len(waiting), reference("Pod", waiting[0].Namespace, waiting[0].Name))
	}
}

// passedGate reports whether shunt-init has seen that the pod is set up.
func passedGate(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.InitContainerStatuses, func(c corev1.ContainerStatus) bool {
		return c.Name == podplan.InitContainerName && c.State.Terminated != nil && c.State.Terminated.ExitCode == 0
	})
}
