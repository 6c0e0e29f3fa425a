package webhook

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/shunt-dev/shunt/inject/annotation"
)

// StaticNamespaces holds known namespaces by name, for a Handler without an API
// server.
type StaticNamespaces map[string]annotation.Namespace

// Namespace returns the named namespace, or an error if it is not among them.
func (s StaticNamespaces) Namespace(_ context.Context, name string) (annotation.Namespace, error) {
	ns, ok := s[name]
	if !ok {
		return annotation.Namespace{}, fmt.Errorf("namespace %q is not known", name)
	}
	return ns, nil
}

// ClusterNamespaces reads the namespaces of an API server. It trusts its cache only
// for a namespace that asks for this injector, and asks the server otherwise: a
// namespace may have been created or labelled a moment before its first pod, and a
// late watch must not let that pod bypass the proxy.
type ClusterNamespaces struct {
	Cache, Live client.Reader
	// Asks reports whether a namespace asks for this injector.
	Asks func(annotation.Namespace) bool
}

// Namespace returns the named namespace.
func (c ClusterNamespaces) Namespace(ctx context.Context, name string) (annotation.Namespace, error) {
	if ns, err := namespaceFrom(ctx, c.Cache, name); err == nil && c.Asks(ns) {
		return ns, nil
	}
	return namespaceFrom(ctx, c.Live, name)
}

func namespaceFrom(ctx context.Context, from client.Reader, name string) (annotation.Namespace, error) {
	object := namespaceMetadata()
	if err := from.Get(ctx, client.ObjectKey{Name: name}, object); err != nil {
		return annotation.Namespace{}, err
	}
	return annotation.Namespace{Name: name, Labels: object.Labels, Annotations: object.Annotations}, nil
}

// namespaceMetadata returns an empty object that requests metadata alone, which is
// all that the cache keeps.
func namespaceMetadata() *metav1.PartialObjectMetadata {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(namespaceKind)
	return object
}
