package check

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// deployed reports whether the webhook has running replicas, and if it has not, why.
func (r *report) deployed(s Snapshot, in installation) {
	service := in.serviceReference()
	switch {
	case service == nil:
		r.add(Warn, Deployment, in.object(), "not checked: the webhooks have a URL, not a Service")
		return
	case in.service == nil && s.cannotRead(resourceServices), in.deployment == nil && s.cannotRead(resourceDeployments):
		return // NotChecked says so
	case in.service == nil:
		r.add(Fail, Deployment, in.object(), "the webhooks' Service %s/%s does not exist", service.Namespace, service.Name)
		return
	case in.deployment == nil:
		r.add(Fail, Deployment, reference("Service", service.Namespace, service.Name), "the Service selects pods of no Deployment")
		return
	}
	status, wanted := in.deployment.Status, ptr.Deref(in.deployment.Spec.Replicas, 1)
	level := OK
	switch {
	case status.AvailableReplicas == 0:
		level = Fail
	case status.AvailableReplicas < wanted:
		level = Warn
	}
	r.add(level, Deployment, in.deploymentObject(), "%d of %d replicas are available", status.AvailableReplicas, wanted)
	if level == OK {
		level = Warn
	}
	for _, problem := range rollout(in.deployment, wanted) {
		r.add(level, Deployment, in.deploymentObject(), "%s", problem)
	}
	r.notReady(s, in, level)
}

// notReady reports why replicas of the webhook are not ready. Those that stop, and
// those that have just begun to start, are none.
func (r *report) notReady(s Snapshot, in installation, level Level) {
	warnings := newestWarnings(s.Events)
	for i := range s.HomePods {
		pod := &s.HomePods[i]
		own := pod.Namespace == in.service.Namespace && isSubset(in.service.Spec.Selector, pod.Labels)
		if !own || pod.DeletionTimestamp != nil || ready(*pod) {
			continue
		}
		cause, message := whyNotReady(pod, warnings[reference("Pod", pod.Namespace, pod.Name)])
		if message != "" {
			r.addPod(level, Deployment, pod, cause, message)
		}
	}
}

// rollout returns what keeps the newest version of the webhook from being the one
// that answers.
func rollout(d *appsv1.Deployment, wanted int32) []string {
	var problems []string
	if d.Status.ObservedGeneration < d.Generation {
		problems = append(problems, "the newest change was not seen yet by its controller")
	} else if d.Status.UpdatedReplicas < wanted {
		problems = append(problems, fmt.Sprintf("the rollout is not complete: %d of %d replicas are of the newest version",
			d.Status.UpdatedReplicas, wanted))
	}
	for _, c := range d.Status.Conditions {
		stuck := c.Type == appsv1.DeploymentProgressing && c.Status == corev1.ConditionFalse
		if stuck || c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			problems = append(problems, fmt.Sprintf("%s: %s", c.Reason, firstLine(c.Message)))
		}
	}
	return problems
}

// whyNotReady returns why a replica is not ready, and what other replicas may have in
// common; nothing if it has just begun to start. Kubelet tells only by Events what
// a pod waits for that has no container yet.
func whyNotReady(pod *corev1.Pod, warning *corev1.Event) (cause, message string) {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return c.Reason, fmt.Sprintf("%s: %s", c.Reason, firstLine(c.Message))
		}
	}
	for _, status := range pod.Status.ContainerStatuses {
		if fault, found := faultOf(pod, status); found {
			return fault.cause(), fault.String()
		}
	}
	if warning != nil {
		return warning.Reason, fmt.Sprintf("%s: %s", warning.Reason, firstLine(warning.Message))
	}
	return "", ""
}

// newestWarnings returns the last warning about each pod.
func newestWarnings(events []corev1.Event) map[string]*corev1.Event {
	newest, at := map[string]*corev1.Event{}, map[string]time.Time{}
	for i := range events {
		about := &events[i].InvolvedObject
		if about.Kind != "Pod" || events[i].Type != corev1.EventTypeWarning {
			continue
		}
		pod, seen := reference(about.Kind, about.Namespace, about.Name), lastSeen(&events[i])
		if newest[pod] == nil || seen.After(at[pod]) {
			newest[pod], at[pod] = &events[i], seen
		}
	}
	return newest
}

func (in installation) deploymentObject() string {
	return reference(kindDeployment, in.deployment.Namespace, in.deployment.Name)
}
