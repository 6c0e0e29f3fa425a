//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/webhook"
)

func TestLoadSamples(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "b.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: second, namespace: shop}\n")
	write(t, dir, "a.yaml", `# a comment
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: many, namespace: shop}
spec:
  template:
    metadata:
      annotations: {a: b}
---
apiVersion: v1
kind: Service
metadata: {name: no-pod}
---
apiVersion: v1
kind: Pod
metadata: {name: first}
`)
	write(t, dir, "kustomization.yaml", "resources: [a.yaml, b.yaml]\n")
	loaded, err := loadSamples(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range loaded.pods {
		got = append(got, s.file+" "+s.pod.Namespace+"/"+s.pod.Name+s.pod.GenerateName)
	}
	if strings.Join(got, ", ") != "a.yaml shop/many-, a.yaml default/first, b.yaml shop/second" {
		t.Errorf("pods %v", got)
	}
	if loaded.pods[0].pod.Annotations["a"] != "b" {
		t.Errorf("the Deployment's pod lacks its template's annotation: %v", loaded.pods[0].pod)
	}
	want := webhook.StaticNamespaces{
		"shop":    {Name: "shop", Labels: map[string]string{"istio-injection": "enabled"}},
		"default": {Name: "default"},
	}
	if diff := cmp.Diff(want, loaded.namespaces); diff != "" {
		t.Errorf("namespaces (-want +got):\n%s", diff)
	}
}

func TestLoadSamplesRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no pod":           "kind: Service\n",
		"a misspelt field": "apiVersion: v1\nkind: Pod\nspec: {container: []}\n",
		"no YAML":          "kind: [\n",
	} {
		dir := t.TempDir()
		write(t, dir, "sample.yaml", text)
		if _, err := loadSamples(dir); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
