package live

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/check"
)

// Workload is what a pod belongs to.
type Workload struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// WorkloadOf returns the controller of a pod, or the pod itself. Of a ReplicaSet
// that a Deployment made it is the Deployment.
func WorkloadOf(pod *corev1.Pod) Workload {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return Workload{"Pod", pod.Namespace, pod.Name}
	}
	if owner.Kind == "ReplicaSet" {
		if name := check.DeploymentOf(owner.Name, pod.Labels); name != "" {
			return Workload{"Deployment", pod.Namespace, name}
		}
	}
	return Workload{owner.Kind, pod.Namespace, owner.Name}
}

// String returns Kind/name.
func (w Workload) String() string { return printable(w.Kind) + "/" + printable(w.Name) }

// RestartCommand returns the command that replaces the pods of a workload, or
// nothing if kubectl has none for its kind.
func (w Workload) RestartCommand(flags string) string {
	command := check.RestartCommand(w.Kind, w.Namespace, w.Name)
	if command == "" {
		return ""
	}
	return command + flags
}
