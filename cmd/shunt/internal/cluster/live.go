package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/check"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/live"
	"github.com/shunt-dev/shunt/inject"
)

// List reads the pods that Read does, and Shunt's installations without their
// certificates.
func List(ctx context.Context, api *rest.Config, namespace string) (check.Snapshot, error) {
	c, snapshot, err := begin(ctx, api)
	if err != nil {
		return check.Snapshot{}, err
	}
	if err := c.shunt(ctx, &snapshot, namespace); err != nil {
		return check.Snapshot{}, err
	}
	return snapshot, c.everybody(ctx, &snapshot, namespace)
}

// kinds are kubectl's names of the kinds that people ask about.
var kinds = map[string]string{
	"pod": "Pod", "pods": "Pod", "po": "Pod", "deployment": "Deployment", "deployments": "Deployment", "deploy": "Deployment",
	"statefulset": "StatefulSet", "statefulsets": "StatefulSet", "sts": "StatefulSet",
	"daemonset": "DaemonSet", "daemonsets": "DaemonSet", "ds": "DaemonSet",
	"replicaset": "ReplicaSet", "replicasets": "ReplicaSet", "rs": "ReplicaSet", "job": "Job", "jobs": "Job",
}

// Named reads the words that name a pod: NAME, KIND/NAME or KIND NAME, as kubectl has
// them. The kind may have its group, as kubectl prints it.
func Named(words ...string) (kind, name string, err error) {
	const accepted = "accepted: POD, or KIND/NAME such as deployment/echo"
	parts := strings.Split(strings.Join(words, "/"), "/")
	switch {
	case len(words) == 0:
		return "", "", errors.New("POD: Required value; " + accepted)
	case len(parts) > 2, parts[0] == "", parts[len(parts)-1] == "":
		return "", "", fmt.Errorf("POD: invalid value %q; %s", strings.Join(words, " "), accepted)
	case len(parts) == 1:
		return "", parts[0], nil
	}
	kind, _, _ = strings.Cut(parts[0], ".")
	if known, is := kinds[strings.ToLower(kind)]; is {
		kind = known
	}
	return kind, parts[1], nil
}

// NotFoundError says that there is no such pod.
type NotFoundError struct{ error }

// Pod reads a pod, its namespace and Shunt's installations. The name may be a
// workload's: then it is the newest of its pods that have not ended. Whoever may not
// read the installations gets the pod all the same.
func Pod(ctx context.Context, api *rest.Config, namespace, kind, name string) (check.Snapshot, *corev1.Pod, error) {
	c, snapshot, err := begin(ctx, api)
	if err != nil {
		return check.Snapshot{}, nil, err
	}
	ns := corev1.Namespace{}
	if err := c.Get(ctx, client.ObjectKey{Name: namespace}, &ns); err != nil {
		return check.Snapshot{}, nil, fmt.Errorf("get namespace %q: %w", namespace, err)
	}
	snapshot.Namespaces = []corev1.Namespace{ns}
	pod, err := c.pod(ctx, namespace, kind, name)
	if err != nil {
		return check.Snapshot{}, nil, err
	}
	return snapshot, pod, c.shunt(ctx, &snapshot, namespace)
}

// pod reads the pod of a name, or the newest pod of a workload. Without a kind the
// name may be either's.
func (c cluster) pod(ctx context.Context, namespace, kind, name string) (*corev1.Pod, error) {
	if kind == "" || kind == "Pod" {
		pod := &corev1.Pod{}
		err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, pod)
		if err == nil {
			return pod, nil
		}
		if !apierrors.IsNotFound(err) {
			return nil, err
		}
	}
	if kind == "Pod" {
		return nil, NotFoundError{fmt.Errorf("namespace %s has no pod %s", namespace, name)}
	}
	return c.newest(ctx, namespace, kind, name)
}

// newest returns the newest pod of a workload that has not ended.
func (c cluster) newest(ctx context.Context, namespace, kind, name string) (*corev1.Pod, error) {
	var newest *corev1.Pod
	var kinds []string
	page := &corev1.PodList{}
	err := c.list(ctx, page, func() {
		for i := range page.Items {
			pod := &page.Items[i]
			is, of := belongs(pod, kind, name)
			if !is || inject.Ended(pod) {
				continue
			}
			kinds = append(kinds, of)
			if newest == nil || newest.CreationTimestamp.Before(&pod.CreationTimestamp) {
				newest = pod.DeepCopy()
			}
		}
	}, client.InNamespace(namespace))
	slices.Sort(kinds)
	kinds = slices.Compact(kinds)
	switch {
	case err != nil:
		return nil, err
	case newest == nil && kind == "":
		return nil, NotFoundError{fmt.Errorf("namespace %s has neither a pod %s nor a workload of this name with a pod", namespace, name)}
	case newest == nil:
		return nil, NotFoundError{fmt.Errorf("namespace %s has no pod of %s %s; shunt check says which workloads are denied",
			namespace, kind, name)}
	case len(kinds) > 1:
		return nil, NotFoundError{fmt.Errorf("namespace %s has pods of several workloads %s: %s; accepted: one of these kinds, as in "+
			"deployment/%[2]s", namespace, name, strings.Join(kinds, ", "))}
	}
	return newest, nil
}

// belongs reports whether a pod is one of a workload, and of which kind: of its
// controller, or of the Deployment behind that.
func belongs(pod *corev1.Pod, kind, name string) (is bool, of string) {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return false, ""
	}
	for _, w := range []live.Workload{live.WorkloadOf(pod), {Kind: owner.Kind, Name: owner.Name}} {
		if w.Name == name && (kind == "" || strings.EqualFold(kind, w.Kind)) {
			return true, w.Kind
		}
	}
	return false, ""
}

// Names returns the names of namespaces or, in a namespace, of pods: as many as
// completion shows.
func Names(ctx context.Context, api *rest.Config, namespace string) ([]string, error) {
	c, err := connect(api)
	if err != nil {
		return nil, err
	}
	var names []string
	if namespace == "" {
		all := &corev1.NamespaceList{}
		err := c.List(ctx, all, client.Limit(pageSize))
		for _, ns := range all.Items {
			names = append(names, ns.Name)
		}
		return names, err
	}
	all := &corev1.PodList{}
	err = c.List(ctx, all, client.InNamespace(namespace), client.Limit(pageSize))
	for _, pod := range all.Items {
		names = append(names, pod.Name)
	}
	return names, err
}
