// Package cluster reads what package check goes by: objects by the API, and
// the certificate that the webhook serves. An address and credentials flow in,
// a check.Snapshot flows out. It changes nothing in the cluster.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/check"
	"github.com/shunt-dev/shunt/inject/config"
)

// pageSize is how many objects are asked for at once, as kubectl has it.
const pageSize = 500

// Read reads what is to be checked of a cluster: the pods and workloads of one
// namespace, or of all where none is named. Namespaces and pods have to be readable;
// what else is not is in Snapshot.Unread.
func Read(ctx context.Context, api *rest.Config, namespace string) (check.Snapshot, error) {
	c, snapshot, err := begin(ctx, api)
	if err != nil {
		return check.Snapshot{}, err
	}
	for _, read := range []func(context.Context, *check.Snapshot, string) error{
		c.shunt, c.certificates, c.agents, c.everybody, c.workloads, c.events,
	} {
		if err := read(ctx, &snapshot, namespace); err != nil {
			return check.Snapshot{}, err
		}
	}
	return snapshot, nil
}

// begin asks the API server what it is.
func begin(ctx context.Context, api *rest.Config) (cluster, check.Snapshot, error) {
	c, err := connect(api)
	if err != nil {
		return cluster{}, check.Snapshot{}, fmt.Errorf("connect to the API server: %w", err)
	}
	natives, err := knowsNativeSidecars(ctx, api)
	return c, check.Snapshot{
		Now: time.Now(), NativeSidecars: natives, Certificates: map[string]check.Served{}, Unread: map[string]error{},
	}, err
}

func knowsNativeSidecars(ctx context.Context, api *rest.Config) (bool, error) {
	asked, err := discovery.NewDiscoveryClientForConfig(api)
	if err != nil {
		return false, err
	}
	info, err := asked.ServerVersionWithContext(ctx)
	if err != nil {
		return false, fmt.Errorf("ask the API server for its version: %w", err)
	}
	return config.KnowsNativeSidecars(info.GitVersion)
}

type cluster struct {
	api *rest.Config
	client.Reader
}

// connect knows where the API has what is read, and does not ask for it.
func connect(api *rest.Config) (cluster, error) {
	scheme, mapper := runtime.NewScheme(), meta.NewDefaultRESTMapper(nil)
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, admissionregistrationv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return cluster{}, err
		}
	}
	for _, known := range []struct {
		group schema.GroupVersion
		scope meta.RESTScope
		kinds []string
	}{
		{admissionregistrationv1.SchemeGroupVersion, meta.RESTScopeRoot, []string{"MutatingWebhookConfiguration"}},
		{corev1.SchemeGroupVersion, meta.RESTScopeRoot, []string{"Namespace"}},
		{corev1.SchemeGroupVersion, meta.RESTScopeNamespace, []string{
			"Pod", "Service", "ConfigMap", "Secret", "Event", "ReplicationController",
		}},
		{appsv1.SchemeGroupVersion, meta.RESTScopeNamespace, []string{"Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"}},
		{batchv1.SchemeGroupVersion, meta.RESTScopeNamespace, []string{"Job", "CronJob"}},
	} {
		for _, kind := range known.kinds {
			mapper.Add(known.group.WithKind(kind), known.scope)
		}
	}
	reader, err := client.New(api, client.Options{Scheme: scheme, Mapper: mapper})
	return cluster{api: api, Reader: reader}, err
}

// shunt reads what Shunt consists of, and asks its replicas for their
// configuration.
func (c cluster) shunt(ctx context.Context, s *check.Snapshot, _ string) error {
	webhooks := &admissionregistrationv1.MutatingWebhookConfigurationList{}
	err := c.listIfAllowed(ctx, s, webhooks, func() { s.Webhooks = append(s.Webhooks, webhooks.Items...) })
	if err != nil {
		return err
	}
	for _, home := range check.Homes(s.Webhooks) {
		in := client.InNamespace(home)
		services, deployments := &corev1.ServiceList{}, &appsv1.DeploymentList{}
		configMaps, own := &corev1.ConfigMapList{}, &corev1.PodList{}
		for _, read := range []struct {
			list client.ObjectList
			take func()
		}{
			{services, func() { s.Services = append(s.Services, services.Items...) }},
			{deployments, func() { s.Deployments = append(s.Deployments, deployments.Items...) }},
			{configMaps, func() { s.ConfigMaps = append(s.ConfigMaps, configMaps.Items...) }},
			{own, func() { s.HomePods = append(s.HomePods, own.Items...) }},
		} {
			if err := c.listIfAllowed(ctx, s, read.list, read.take, in); err != nil {
				return err
			}
		}
		if err := c.warnings(ctx, s, home); err != nil {
			return err
		}
	}
	for _, asking := range s.Askings() {
		s.Replicas = append(s.Replicas, c.replicas(ctx, asking)...)
	}
	return nil
}

// agents reads what there is of shunt-node. Whoever may look at one namespace only
// is told so where it matters.
func (c cluster) agents(ctx context.Context, s *check.Snapshot, _ string) error {
	daemonSets, pods := &appsv1.DaemonSetList{}, &corev1.PodList{}
	for _, read := range []struct {
		list client.ObjectList
		take func()
	}{
		{daemonSets, func() { s.Agents.DaemonSets = append(s.Agents.DaemonSets, daemonSets.Items...) }},
		{pods, func() { s.Agents.Pods = append(s.Agents.Pods, pods.Items...) }},
	} {
		err := c.list(ctx, read.list, read.take, client.MatchingLabels{"app.kubernetes.io/name": check.AgentName})
		if apierrors.IsForbidden(err) {
			s.Agents = check.Agents{Unread: err}
			return nil
		}
		if err != nil {
			return err
		}
	}
	for _, home := range s.Agents.Homes() {
		if err := c.warnings(ctx, s, home); err != nil {
			return err
		}
	}
	return nil
}

// warnings reads those about pods of a namespace.
func (c cluster) warnings(ctx context.Context, s *check.Snapshot, namespace string) error {
	warnings := &corev1.EventList{}
	return c.listIfAllowed(ctx, s, warnings, func() { s.Events = append(s.Events, warnings.Items...) }, client.InNamespace(namespace),
		client.MatchingFields{"involvedObject.kind": "Pod", "type": corev1.EventTypeWarning})
}

// certificates reads those that the webhooks serve.
func (c cluster) certificates(ctx context.Context, s *check.Snapshot, _ string) error {
	for _, target := range s.Targets() {
		s.Certificates[target.Name] = c.certificate(ctx, target)
	}
	return nil
}

// everybody reads the pods that could have the proxy.
func (c cluster) everybody(ctx context.Context, s *check.Snapshot, namespace string) error {
	pods := &corev1.PodList{}
	take := func() { s.Pods = append(s.Pods, pods.Items...) }
	if namespace != "" {
		ns := corev1.Namespace{}
		if err := c.Get(ctx, client.ObjectKey{Name: namespace}, &ns); err != nil {
			return fmt.Errorf("get namespace %q: %w", namespace, err)
		}
		s.Namespaces = append(s.Namespaces, ns)
		return c.list(ctx, pods, take, client.InNamespace(namespace))
	}
	namespaces := &corev1.NamespaceList{}
	if err := c.list(ctx, namespaces, func() { s.Namespaces = append(s.Namespaces, namespaces.Items...) }); err != nil {
		return err
	}
	return c.list(ctx, pods, take)
}

// workloads reads what makes pods.
func (c cluster) workloads(ctx context.Context, s *check.Snapshot, namespace string) error {
	in := client.InNamespace(namespace)
	for _, list := range []client.ObjectList{
		&appsv1.DeploymentList{}, &appsv1.StatefulSetList{}, &appsv1.DaemonSetList{}, &corev1.ReplicationControllerList{},
		&batchv1.JobList{}, &batchv1.CronJobList{},
	} {
		if err := c.listIfAllowed(ctx, s, list, func() { takeWorkloads(s, list) }, in); err != nil {
			return err
		}
	}
	return c.replicaSets(ctx, s, in)
}

// replicaSets reads those that somebody wrote, and of all others whose they are: a
// Deployment keeps ten.
func (c cluster) replicaSets(ctx context.Context, s *check.Snapshot, in client.InNamespace) error {
	heads := &metav1.PartialObjectMetadataList{}
	heads.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("ReplicaSetList"))
	var alone []string // namespaces
	err := c.listIfAllowed(ctx, s, heads, func() {
		for i := range heads.Items {
			if head := &heads.Items[i]; metav1.GetControllerOfNoCopy(head) != nil {
				s.Workloads = append(s.Workloads, check.NewWorkload(head))
			} else if !slices.Contains(alone, head.Namespace) {
				alone = append(alone, head.Namespace)
			}
		}
	}, in)
	if err != nil {
		return err
	}
	for _, namespace := range alone {
		all := &appsv1.ReplicaSetList{}
		err := c.listIfAllowed(ctx, s, all, func() {
			all.Items = slices.DeleteFunc(all.Items, func(o appsv1.ReplicaSet) bool { return metav1.GetControllerOfNoCopy(&o) != nil })
			takeWorkloads(s, all)
		}, client.InNamespace(namespace))
		if err != nil {
			return err
		}
	}
	return nil
}

// takeWorkloads keeps what is looked at of a page.
func takeWorkloads(s *check.Snapshot, page client.ObjectList) {
	// An error means that there are no items, which the types above have.
	_ = meta.EachListItem(page, func(item runtime.Object) error {
		if object, is := item.(metav1.Object); is {
			s.Workloads = append(s.Workloads, check.NewWorkload(object))
		}
		return nil
	})
}

// events reads those that tell which pods are not created.
func (c cluster) events(ctx context.Context, s *check.Snapshot, namespace string) error {
	for _, only := range []client.MatchingFields{{"reason": check.EventFailedCreate}, {"reportingComponent": check.EventReporter}} {
		events := &corev1.EventList{}
		take := func() { s.Events = append(s.Events, events.Items...) }
		if err := c.listIfAllowed(ctx, s, events, take, client.InNamespace(namespace), only); err != nil {
			return err
		}
	}
	return nil
}

// listIfAllowed is list, and records what the user may not list.
func (c cluster) listIfAllowed(
	ctx context.Context, s *check.Snapshot, page client.ObjectList, take func(), opts ...client.ListOption,
) error {
	err := c.list(ctx, page, take, opts...)
	var status apierrors.APIStatus
	if !apierrors.IsForbidden(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return err
	}
	resource := schema.GroupResource{Group: status.Status().Details.Group, Resource: status.Status().Details.Kind}
	s.Unread[resource.String()] = err
	return nil
}

// list reads page by page, and has each taken.
func (c cluster) list(ctx context.Context, page client.ObjectList, take func(), opts ...client.ListOption) error {
	next := ""
	for {
		if err := c.List(ctx, page, append(opts, client.Limit(pageSize), client.Continue(next))...); err != nil {
			return err // it names what was to be listed
		}
		take()
		if next = page.GetContinue(); next == "" {
			return nil
		}
	}
}
