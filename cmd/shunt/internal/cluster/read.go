// Package cluster reads what package check goes by: objects by the API, and
// the certificate that the webhook serves. An address and credentials flow in,
// a check.Snapshot flows out. It changes nothing in the cluster.
package cluster

import (
	"context"
	"fmt"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
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

// Read reads what is to be checked of a cluster: the pods of one namespace, or
// of all where none is named.
func Read(ctx context.Context, api *rest.Config, namespace string) (check.Snapshot, error) {
	c, err := connect(api)
	if err != nil {
		return check.Snapshot{}, fmt.Errorf("connect to the API server: %w", err)
	}
	natives, err := knowsNativeSidecars(ctx, api)
	if err != nil {
		return check.Snapshot{}, err
	}
	snapshot := check.Snapshot{Now: time.Now(), NativeSidecars: natives, Certificates: map[string]check.Served{}}
	if err := c.shunt(ctx, &snapshot); err != nil {
		return check.Snapshot{}, err
	}
	return snapshot, c.everybody(ctx, &snapshot, namespace)
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
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, admissionregistrationv1.AddToScheme} {
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
		{corev1.SchemeGroupVersion, meta.RESTScopeNamespace, []string{"Pod", "Service", "ConfigMap", "Secret"}},
		{appsv1.SchemeGroupVersion, meta.RESTScopeNamespace, []string{"Deployment"}},
	} {
		for _, kind := range known.kinds {
			mapper.Add(known.group.WithKind(kind), known.scope)
		}
	}
	reader, err := client.New(api, client.Options{Scheme: scheme, Mapper: mapper})
	return cluster{api: api, Reader: reader}, err
}

// shunt reads what Shunt consists of.
func (c cluster) shunt(ctx context.Context, s *check.Snapshot) error {
	webhooks := &admissionregistrationv1.MutatingWebhookConfigurationList{}
	err := c.list(ctx, webhooks, func() { s.Webhooks = append(s.Webhooks, webhooks.Items...) })
	if err != nil {
		return err
	}
	var pods []corev1.Pod
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
			{own, func() { pods = append(pods, own.Items...) }},
		} {
			if err := c.list(ctx, read.list, read.take, in); err != nil {
				return err
			}
		}
	}
	for _, target := range s.Targets(pods) {
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
