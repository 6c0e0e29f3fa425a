// Package clustertest holds the objects of a cluster in memory, for the cases of
// check and live: documents flow in, typed objects flow out.
package clustertest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
)

// Objects are those of a cluster.
type Objects map[string]json.RawMessage // by kind, namespace and name

// Put merges a document into the object that it names, like kubectl patch. With $patch: delete it
// deletes the object.
func (c Objects) Put(t *testing.T, document []byte) {
	t.Helper()
	var head struct {
		Kind     string
		Metadata struct{ Namespace, Name string }
		Patch    string `json:"$patch"`
	}
	if err := json.Unmarshal(document, &head); err != nil {
		t.Fatal(err)
	}
	key := head.Kind + "/" + head.Metadata.Namespace + "/" + head.Metadata.Name
	before, there := c[key]
	switch {
	case head.Patch == "delete":
		if !there {
			t.Fatalf("%s is not there", key)
		}
		delete(c, key)
		return
	case !there:
		before = json.RawMessage("{}")
	}
	after, err := strategicpatch.StrategicMergePatch(before, document, typeOf(t, head.Kind))
	if err != nil {
		t.Fatal(err)
	}
	c[key] = after
}

func typeOf(t *testing.T, kind string) any {
	t.Helper()
	types := map[string]any{
		"MutatingWebhookConfiguration": admissionregistrationv1.MutatingWebhookConfiguration{}, "Service": corev1.Service{},
		"Deployment": appsv1.Deployment{}, "ConfigMap": corev1.ConfigMap{}, "Namespace": corev1.Namespace{}, "Pod": corev1.Pod{},
		"ReplicaSet": appsv1.ReplicaSet{}, "ReplicationController": corev1.ReplicationController{}, "StatefulSet": appsv1.StatefulSet{},
		"DaemonSet": appsv1.DaemonSet{}, "Job": batchv1.Job{}, "CronJob": batchv1.CronJob{}, "Event": corev1.Event{},
	}
	if types[kind] == nil {
		t.Fatalf("no case knows a %s", kind)
	}
	return types[kind]
}

// PutAll puts many documents.
func (c Objects) PutAll(t *testing.T, text []byte) {
	t.Helper()
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		var document json.RawMessage
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(document) > 0 && string(document) != "null" {
			c.Put(t, document)
		}
	}
}

// Of returns the objects of a kind, by namespace and name.
func Of[T any](t *testing.T, c Objects, kind string) []T {
	t.Helper()
	var all []T
	for _, key := range slices.Sorted(maps.Keys(c)) {
		if !strings.HasPrefix(key, kind+"/") {
			continue
		}
		var object T
		if err := json.Unmarshal(c[key], &object); err != nil {
			t.Fatal(err)
		}
		all = append(all, object)
	}
	return all
}

// PutInjected puts pods with the proxy, by a configuration and a namespace that
// asks for its revision.
func (c Objects) PutInjected(t *testing.T, pods, configuration []byte) {
	t.Helper()
	cfg, err := inject.ParseConfig(configuration)
	if err != nil {
		t.Fatal(err)
	}
	given := Objects{}
	given.PutAll(t, pods)
	for _, pod := range Of[corev1.Pod](t, given, "Pod") {
		asking := annotation.Namespace{Name: pod.Namespace, Labels: map[string]string{annotation.RevisionKey: cfg.Revision}}
		result := inject.NewInjector(cfg).OfVersion("v0.1.0").Inject(&pod, asking)
		if !result.Inject {
			t.Fatalf("%s: %s %v", pod.Name, result.Reason, result.Errors)
		}
		result.Pod.Kind = "Pod"
		text, err := json.Marshal(result.Pod)
		if err != nil {
			t.Fatal(err)
		}
		c.Put(t, text)
	}
}
