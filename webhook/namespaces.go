package webhook

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/shunt-dev/shunt/inject"
)

// StaticNamespaces are namespaces that are known beforehand, by name; for a
// Handler without an API server.
type StaticNamespaces map[string]inject.Namespace

// Namespace returns the named namespace, or an error where it is not there.
func (s StaticNamespaces) Namespace(_ context.Context, name string) (inject.Namespace, error) {
	ns, ok := s[name]
	if !ok {
		return inject.Namespace{}, fmt.Errorf("namespace %q is not known", name)
	}
	return ns, nil
}

// ClusterNamespaces are those of an API server: read from a cache, and from
// the server itself where the cache does not know. A namespace and its first
// pod are often created in one breath, before any watch has told of it.
type ClusterNamespaces struct {
	Cache, Live client.Reader
}

// Namespace returns the named namespace.
func (c ClusterNamespaces) Namespace(ctx context.Context, name string) (inject.Namespace, error) {
	object := namespaceMetadata()
	if err := c.Cache.Get(ctx, client.ObjectKey{Name: name}, object); err != nil {
		object = namespaceMetadata()
		if err := c.Live.Get(ctx, client.ObjectKey{Name: name}, object); err != nil {
			return inject.Namespace{}, err
		}
	}
	return inject.Namespace{Name: name, Labels: object.Labels, Annotations: object.Annotations}, nil
}

// namespaceMetadata asks for metadata alone, which is all that is kept.
func namespaceMetadata() *metav1.PartialObjectMetadata {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(namespaceKind)
	return object
}
