package patch_test

import (
	"encoding/json"
	"fmt"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/webhook/patch"
)

// change is what the operations are made for, on a pod that raw holds.
func change(t *testing.T, raw string, edit func(*corev1.Pod)) (operations []string, patched string) {
	t.Helper()
	var before corev1.Pod
	if err := json.Unmarshal([]byte(raw), &before); err != nil {
		t.Fatal(err)
	}
	after := before.DeepCopy()
	edit(after)
	ops, err := patch.Diff([]byte(raw), &before, after)
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range ops {
		operations = append(operations, op.Operation+" "+op.Path)
	}
	text, err := json.Marshal(ops)
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := jsonpatch.DecodePatch(text)
	if err != nil {
		t.Fatal(err)
	}
	result, err := decoded.Apply([]byte(raw))
	if err != nil {
		t.Fatalf("apply %s: %v", text, err)
	}
	return operations, string(result)
}

func prepend(names ...string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		var added []corev1.Container
		for _, name := range names {
			added = append(added, corev1.Container{Name: name, Image: "new"})
		}
		pod.Spec.InitContainers = append(added, pod.Spec.InitContainers...)
	}
}

func TestDiff(t *testing.T) {
	annotate := func(pod *corev1.Pod) {
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations["sidecar.istio.io/a~b"] = "1"
	}
	tests := []struct {
		name, raw  string
		edit       func(*corev1.Pod)
		operations []string
		patched    string
	}{
		{
			name: "nothing", raw: `{"spec":{}}`, edit: func(*corev1.Pod) {}, patched: `{"spec":{}}`,
		},
		{
			name: "no annotations yet", raw: `{"metadata":{"name":"p"}}`, edit: annotate,
			operations: []string{"add /metadata/annotations"},
			patched:    `{"metadata":{"name":"p","annotations":{"sidecar.istio.io/a~b":"1"}}}`,
		},
		{
			name: "no metadata at all", raw: `{"spec":{"x":1}}`, edit: annotate,
			operations: []string{"add /metadata"},
			patched:    `{"metadata":{"annotations":{"sidecar.istio.io/a~b":"1"}},"spec":{"x":1}}`,
		},
		{
			name: "annotations are null", raw: `{"metadata":{"annotations":null}}`, edit: annotate,
			operations: []string{"add /metadata/annotations"},
			patched:    `{"metadata":{"annotations":{"sidecar.istio.io/a~b":"1"}}}`,
		},
		{
			name: "annotations are there, the key is escaped",
			raw:  `{"metadata":{"annotations":{"k":"v"}}}`, edit: annotate,
			operations: []string{"add /metadata/annotations/sidecar.istio.io~1a~0b"},
			patched:    `{"metadata":{"annotations":{"k":"v","sidecar.istio.io/a~b":"1"}}}`,
		},
		{
			name: "value replaced", raw: `{"metadata":{"annotations":{"sidecar.istio.io/a~b":"0"}}}`, edit: annotate,
			operations: []string{"replace /metadata/annotations/sidecar.istio.io~1a~0b"},
			patched:    `{"metadata":{"annotations":{"sidecar.istio.io/a~b":"1"}}}`,
		},
		{
			name: "list is empty", raw: `{"spec":{"initContainers":[]}}`, edit: prepend("a", "b"),
			operations: []string{"add /spec/initContainers"},
			patched:    `{"spec":{"initContainers":[{"name":"a","image":"new","resources":{}},{"name":"b","image":"new","resources":{}}]}}`,
		},
		{
			name: "put in front, and what Go's types do not know stays",
			raw:  `{"spec":{"initContainers":[{"name":"x","future":{"deep":1e3}},{"name":"y"}]}}`, edit: prepend("a", "b"),
			operations: []string{"add /spec/initContainers/0", "add /spec/initContainers/1"},
			patched: `{"spec":{"initContainers":[{"name":"a","image":"new","resources":{}},{"name":"b","image":"new","resources":{}},` +
				`{"name":"x","future":{"deep":1e3}},{"name":"y"}]}}`,
		},
		{
			name: "old ones replaced: removed from behind, added from the front, the kept one changed in its new place",
			raw:  `{"spec":{"initContainers":[{"name":"a"},{"name":"b"},{"name":"x","image":"old","future":1}]}}`,
			edit: func(pod *corev1.Pod) {
				kept := pod.Spec.InitContainers[2]
				kept.Image = "new"
				pod.Spec.InitContainers = []corev1.Container{{Name: "c"}, kept}
			},
			operations: []string{
				"remove /spec/initContainers/1", "remove /spec/initContainers/0",
				"add /spec/initContainers/0", "replace /spec/initContainers/1/image",
			},
			patched: `{"spec":{"initContainers":[{"name":"c","resources":{}},{"name":"x","image":"new","future":1}]}}`,
		},
		{
			name: "other order: the whole list", raw: `{"spec":{"volumes":[{"name":"a"},{"name":"b"}]}}`,
			edit: func(pod *corev1.Pod) {
				v := pod.Spec.Volumes
				pod.Spec.Volumes = []corev1.Volume{v[1], v[0]}
			},
			operations: []string{"replace /spec/volumes"},
			patched:    `{"spec":{"volumes":[{"name":"b"},{"name":"a"}]}}`,
		},
		{
			name: "one name twice: the whole list", raw: `{"spec":{"volumes":[{"name":"a"},{"name":"a"}]}}`,
			edit:       func(pod *corev1.Pod) { pod.Spec.Volumes = pod.Spec.Volumes[:1] },
			operations: []string{"replace /spec/volumes"},
			patched:    `{"spec":{"volumes":[{"name":"a"}]}}`,
		},
		{
			name: "elements without names: the whole list", raw: `{"spec":{"containers":[{"name":"a","args":["1","2"]}]}}`,
			edit:       func(pod *corev1.Pod) { pod.Spec.Containers[0].Args = []string{"0", "1", "2"} },
			operations: []string{"replace /spec/containers/0/args"},
			patched:    `{"spec":{"containers":[{"name":"a","args":["0","1","2"]}]}}`,
		},
		{
			name: "the last one gone", raw: `{"spec":{"volumes":[{"name":"a"}],"nodeName":"n"}}`,
			edit:       func(pod *corev1.Pod) { pod.Spec.Volumes = nil },
			operations: []string{"remove /spec/volumes"},
			patched:    `{"spec":{"nodeName":"n"}}`,
		},
		{
			name: "an integer beyond float64 is kept", raw: `{"spec":{"containers":null,"priority":1}}`,
			edit:       func(pod *corev1.Pod) { pod.Spec.ActiveDeadlineSeconds = new(int64(9007199254740993)) },
			operations: []string{"add /spec/activeDeadlineSeconds"},
			patched:    `{"spec":{"containers":null,"priority":1,"activeDeadlineSeconds":9007199254740993}}`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			operations, patched := change(t, test.raw, test.edit)
			if diff := cmp.Diff(test.operations, operations); diff != "" {
				t.Errorf("operations (-want +got):\n%s", diff)
			}
			if !jsonpatch.Equal([]byte(test.patched), []byte(patched)) {
				t.Errorf("patched: %s\nwant:    %s", patched, test.patched)
			}
		})
	}
}

// TestSizeStaysWithThePod holds that what a pod has of its own costs nothing:
// a comparison by index makes 1,551 operations of a pod with 1,500 variables.
func TestSizeStaysWithThePod(t *testing.T) {
	sizes := map[int]int{}
	for _, many := range []int{0, 1500} {
		pod := corev1.Pod{Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "first"}}, Containers: []corev1.Container{{Name: "app"}},
		}}
		pod.Annotations = map[string]string{"k": "v"}
		for i := range many {
			variable := corev1.EnvVar{Name: fmt.Sprintf("V%d", i), Value: "value"}
			pod.Spec.Containers[0].Env = append(pod.Spec.Containers[0].Env, variable)
			pod.Spec.InitContainers[0].Env = append(pod.Spec.InitContainers[0].Env, variable)
		}
		raw, err := json.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		plan, errs := inject.NewPlan(&pod, inject.Namespace{}, inject.DefaultConfig())
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		ops, err := patch.Diff(raw, &pod, plan.Apply(&pod))
		if err != nil {
			t.Fatal(err)
		}
		if len(ops) != 7 {
			t.Errorf("%d variables: %d operations, want 7: four annotations, two init containers and a volume", many, len(ops))
		}
		text, err := json.Marshal(ops)
		if err != nil {
			t.Fatal(err)
		}
		sizes[many] = len(text)
	}
	if sizes[0] != sizes[1500] {
		t.Errorf("bytes by number of variables: %v, want the same", sizes)
	}
	t.Logf("bytes of the patch: %d", sizes[0])
}

func TestPointer(t *testing.T) {
	for _, keys := range [][]string{nil, {"a"}, {"a/b", "~1", "~", ""}} {
		path := ""
		for _, key := range keys {
			path = patch.Join(path, key)
		}
		if diff := cmp.Diff(keys, patch.Split(path)); diff != "" {
			t.Errorf("Split(%q) (-want +got):\n%s", path, diff)
		}
	}
}

func TestDiffRefusesWhatIsNoObject(t *testing.T) {
	if ops, err := patch.Diff([]byte(`[]`), corev1.Pod{}, corev1.Pod{}); err == nil {
		t.Errorf("Diff of a list: %v, want an error", ops)
	}
}
