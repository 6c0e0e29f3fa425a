package check

import (
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// Workload is what is looked at of an object that makes pods. A cluster has
// thousands, so it is not the object itself.
type Workload struct {
	Kind, Namespace, Name string

	UID        types.UID
	Controller *metav1.OwnerReference // what made it; nil if nobody did
	// Own are its own labels and annotations, and those of a CronJob's jobTemplate;
	// Template are those of its pods, nil if they were not read.
	Own      []Metadata
	Template *Metadata
	// HostNetwork means that its pods use their node's network, and get no proxy.
	HostNetwork bool
	// Failure is the message with which its controller says that it cannot make
	// pods; empty if it says nothing, which Kubernetes' own say for some kinds only.
	Failure string
	// Short means that it has fewer pods than it wants, Complete that it wants none
	// any more.
	Short, Complete bool
}

// Metadata are the labels and annotations at a place of an object.
type Metadata struct {
	Path                *field.Path // of the object with the metadata; nil for the object itself
	Labels, Annotations map[string]string
}

var (
	underTemplate    = field.NewPath("spec", "template")
	underJobTemplate = field.NewPath("spec", "jobTemplate")
)

// NewWorkload returns what is looked at of an object. The status of a kind says in
// its own way whether there are too few pods:
//
//	Deployment, ReplicaSet, ReplicationController    the condition ReplicaFailure
//	StatefulSet, DaemonSet                           pods that exist, and that should
//	Job                                              pods that run or have succeeded, and that should
//	any other                                        nothing
func NewWorkload(object metav1.Object) Workload {
	w := Workload{
		Namespace: object.GetNamespace(), Name: object.GetName(), UID: object.GetUID(), Controller: metav1.GetControllerOfNoCopy(object),
		Own: []Metadata{{Labels: object.GetLabels(), Annotations: withoutManifest(object.GetAnnotations())}},
	}
	template := func(path *field.Path, of *corev1.PodTemplateSpec) {
		w.Template, w.HostNetwork = &Metadata{path, of.Labels, of.Annotations}, of.Spec.HostNetwork
	}
	switch o := object.(type) {
	case *metav1.PartialObjectMetadata: // of a ReplicaSet that a Deployment made; there are ten for each
		w.Kind, w.Own = kindReplicaSet, nil
	case *appsv1.Deployment:
		w.Kind = kindDeployment
		template(underTemplate, &o.Spec.Template)
		for _, c := range o.Status.Conditions {
			w.failed(string(c.Type), c.Status, c.Message)
		}
	case *appsv1.ReplicaSet:
		w.Kind = kindReplicaSet
		template(underTemplate, &o.Spec.Template)
		for _, c := range o.Status.Conditions {
			w.failed(string(c.Type), c.Status, c.Message)
		}
	case *corev1.ReplicationController:
		w.Kind = kindReplication
		if o.Spec.Template != nil {
			template(underTemplate, o.Spec.Template)
		}
		for _, c := range o.Status.Conditions {
			w.failed(string(c.Type), c.Status, c.Message)
		}
	case *appsv1.StatefulSet:
		w.Kind = kindStatefulSet
		template(underTemplate, &o.Spec.Template)
		w.Short = o.Status.Replicas < ptr.Deref(o.Spec.Replicas, 1)
	case *appsv1.DaemonSet:
		w.Kind = kindDaemonSet
		template(underTemplate, &o.Spec.Template)
		w.Short = o.Status.CurrentNumberScheduled < o.Status.DesiredNumberScheduled
	case *batchv1.Job:
		w.Kind = kindJob
		template(underTemplate, &o.Spec.Template)
		w.Complete, w.Short = jobLacks(o)
	case *batchv1.CronJob:
		w.Kind = kindCronJob
		of := &o.Spec.JobTemplate
		w.Own = append(w.Own, Metadata{underJobTemplate, of.Labels, of.Annotations})
		template(underJobTemplate.Child("spec", "template"), &of.Spec.Template)
	}
	return w
}

// The kinds of workloads.
const (
	kindDeployment  = "Deployment"
	kindReplicaSet  = "ReplicaSet"
	kindReplication = "ReplicationController"
	kindStatefulSet = "StatefulSet"
	kindDaemonSet   = "DaemonSet"
	kindJob         = "Job"
	kindCronJob     = "CronJob"
)

// resourceOf maps each kind to what Snapshot.Unread names it.
var resourceOf = map[string]string{
	kindDeployment: resourceDeployments, kindReplicaSet: "replicasets.apps", kindReplication: "replicationcontrollers",
	kindStatefulSet: "statefulsets.apps", kindDaemonSet: "daemonsets.apps", kindJob: "jobs.batch", kindCronJob: "cronjobs.batch",
}

// jobLacks reports whether a Job has ended, and whether it has fewer pods than it
// wants.
func jobLacks(o *batchv1.Job) (complete, short bool) {
	for _, c := range o.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return true, false
		}
	}
	if ptr.Deref(o.Spec.Suspend, false) {
		return false, false
	}
	wanted := ptr.Deref(o.Spec.Parallelism, 1)
	if o.Spec.Completions != nil {
		wanted = min(wanted, *o.Spec.Completions-o.Status.Succeeded)
	}
	return false, o.Status.Active < wanted
}

// failed takes a condition of the status.
func (w *Workload) failed(condition string, status corev1.ConditionStatus, message string) {
	if condition == string(appsv1.DeploymentReplicaFailure) && status == corev1.ConditionTrue {
		w.Failure = message
	}
}

// withoutManifest leaves out what kubectl keeps there, which is the whole object
// again.
func withoutManifest(annotations map[string]string) map[string]string {
	delete(annotations, corev1.LastAppliedConfigAnnotation)
	return annotations
}

func (w *Workload) object() string { return reference(w.Kind, w.Namespace, w.Name) }

// reference names an object, as Kind/namespace/name.
func reference(kind, namespace, name string) string { return kind + "/" + namespace + "/" + name }

// workloads finds the workload that pods belong to.
type workloads map[string]*Workload // by reference

func newWorkloads(all []Workload) workloads {
	found := make(workloads, len(all))
	for i := range all {
		found[all[i].object()] = &all[i]
	}
	return found
}

// top returns the reference of the object that somebody wrote: a ReplicaSet's and a
// Job's controller, or the object itself. Labels are those of the object or its pod.
func (all workloads) top(namespace, kind, name string, labels map[string]string) string {
	known := all[reference(kind, namespace, name)]
	switch {
	case kind != kindReplicaSet && kind != kindJob:
	case known != nil && known.Controller != nil:
		return reference(known.Controller.Kind, namespace, known.Controller.Name)
	case known == nil && kind == kindReplicaSet:
		if deployment := DeploymentOf(name, labels); deployment != "" {
			return reference(kindDeployment, namespace, deployment)
		}
	}
	return reference(kind, namespace, name)
}

// DeploymentOf returns the name of the Deployment that made a ReplicaSet, without
// asking for the ReplicaSet; empty if none did. The ReplicaSet's name is the
// Deployment's with the value of the label pod-template-hash, which only Deployments
// set; labels are the ReplicaSet's or those of a pod of it.
func DeploymentOf(replicaSet string, labels map[string]string) string {
	hash := labels[appsv1.DefaultDeploymentUniqueLabelKey]
	if hash == "" {
		return ""
	}
	name, made := strings.CutSuffix(replicaSet, "-"+hash)
	if !made {
		return ""
	}
	return name
}

// of returns the reference of the object that a pod belongs to; its own if nobody
// made it.
func (all workloads) of(pod *corev1.Pod) string {
	controller := metav1.GetControllerOfNoCopy(pod)
	if controller == nil {
		return reference("Pod", pod.Namespace, pod.Name)
	}
	return all.top(pod.Namespace, controller.Kind, controller.Name, pod.Labels)
}

// RestartCommand returns the command that replaces the pods of a workload, or
// nothing if kubectl has none for its kind. Whoever writes a pod chooses the name of
// its owner, so that one that is no name of an object never becomes a command.
func RestartCommand(kind, namespace, name string) string {
	switch kind {
	case kindDeployment, kindStatefulSet, kindDaemonSet:
	default:
		return ""
	}
	if len(validation.IsDNS1123Subdomain(name)) > 0 || len(validation.IsDNS1123Label(namespace)) > 0 {
		return ""
	}
	return "kubectl rollout restart " + strings.ToLower(kind) + "/" + name + " -n " + namespace
}

// replace says how a pod is replaced by a new one.
func (all workloads) replace(pod *corev1.Pod) string {
	parts := strings.SplitN(all.of(pod), "/", 3)
	if command := RestartCommand(parts[0], parts[1], parts[2]); command != "" {
		return command
	}
	return "recreate it"
}
