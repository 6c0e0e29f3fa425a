package webhook_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/webhook"
)

// reader knows some namespaces' labels.
type reader struct {
	client.Reader
	labels map[string]map[string]string
}

var errNotFound = errors.New("not found")

func (r reader) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	// A real reader may have written to the object before it fails.
	into.SetLabels(map[string]string{"half": "read"})
	labels, ok := r.labels[key.Name]
	if !ok {
		return errNotFound
	}
	into.SetLabels(labels)
	return nil
}

func TestClusterNamespaces(t *testing.T) {
	asks := map[string]string{annotation.NamespaceInjectionKey: annotation.NamespaceEnabled, "from": "cache"}
	other := map[string]string{annotation.RevisionKey: "canary", "from": "cache"}
	stale, fresh := map[string]string{"from": "cache"}, map[string]string{"from": "live"}
	namespaces := webhook.ClusterNamespaces{
		Cache: reader{labels: map[string]map[string]string{"asks": asks, "stale": stale, "other": other}},
		Live:  reader{labels: map[string]map[string]string{"asks": fresh, "stale": fresh, "other": fresh, "new": fresh, "bare": nil}},
		Asks:  inject.NewInjector(config.Default()).Asks,
	}
	for name, want := range map[string]map[string]string{"asks": asks, "stale": fresh, "other": fresh, "new": fresh, "bare": nil} {
		got, err := namespaces.Namespace(t.Context(), name)
		if diff := cmp.Diff(annotation.Namespace{Name: name, Labels: want}, got); diff != "" || err != nil {
			t.Errorf("namespace %s: error %v, (-want +got):\n%s", name, err, diff)
		}
	}
	if _, err := namespaces.Namespace(t.Context(), "none"); !errors.Is(err, errNotFound) {
		t.Errorf("a namespace that is nowhere: error %v, want %v", err, errNotFound)
	}
}
