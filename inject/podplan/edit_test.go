package podplan

import (
	"encoding/json"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
)

// editCase is an edit of a pod, the operations that it has to record, and what
// they have to make of the pod's JSON.
type editCase struct {
	name, before string
	edit         func(*Edit)
	operations   []string
	after        string
}

func newContainers(names ...string) []corev1.Container {
	var containers []corev1.Container
	for _, name := range names {
		containers = append(containers, corev1.Container{Name: name, Image: "new"})
	}
	return containers
}

func prependInit(e *Edit) {
	prepend(e, initContainersPath, &e.pod.Spec.InitContainers, newContainers("a", "b"))
}

func extendVolumes(e *Edit) {
	extend(e, volumesPath, &e.pod.Spec.Volumes, []corev1.Volume{{Name: "a"}, {Name: "b"}})
}

func dropVolumes(names ...string) func(*Edit) {
	unwanted := sets.New(names...)
	return func(e *Edit) {
		drop(e, volumesPath, &e.pod.Spec.Volumes, func(v *corev1.Volume) bool { return unwanted.Has(v.Name) })
	}
}

var listCases = []editCase{
	{
		name: "prepend nothing", before: `{"spec":{"initContainers":[{"name":"x"}]}}`,
		edit:  func(e *Edit) { prepend(e, initContainersPath, &e.pod.Spec.InitContainers, nil) },
		after: `{"spec":{"initContainers":[{"name":"x"}]}}`,
	},
	{
		name: "prepend to no list", before: `{"spec":{}}`, edit: prependInit,
		operations: []string{"add /spec/initContainers"},
		after:      `{"spec":{"initContainers":[{"name":"a","image":"new","resources":{}},{"name":"b","image":"new","resources":{}}]}}`,
	},
	{
		name: "prepend to null", before: `{"spec":{"initContainers":null}}`, edit: prependInit,
		operations: []string{"add /spec/initContainers"},
		after:      `{"spec":{"initContainers":[{"name":"a","image":"new","resources":{}},{"name":"b","image":"new","resources":{}}]}}`,
	},
	{
		name: "prepend to an empty list", before: `{"spec":{"initContainers":[]}}`, edit: prependInit,
		operations: []string{"add /spec/initContainers"},
		after:      `{"spec":{"initContainers":[{"name":"a","image":"new","resources":{}},{"name":"b","image":"new","resources":{}}]}}`,
	},
	{
		name: "prepend keeps unknown fields", before: `{"spec":{"initContainers":[{"name":"x","future":{"deep":1e3}},{"name":"y"}]}}`,
		edit: prependInit, operations: []string{"add /spec/initContainers/0", "add /spec/initContainers/1"},
		after: `{"spec":{"initContainers":[{"name":"a","image":"new","resources":{}},{"name":"b","image":"new","resources":{}},` +
			`{"name":"x","future":{"deep":1e3}},{"name":"y"}]}}`,
	},
	{
		name: "extend no list", before: `{"spec":{}}`, edit: extendVolumes,
		operations: []string{"add /spec/volumes"}, after: `{"spec":{"volumes":[{"name":"a"},{"name":"b"}]}}`,
	},
	{
		name: "extend null", before: `{"spec":{"volumes":null}}`, edit: extendVolumes,
		operations: []string{"add /spec/volumes"}, after: `{"spec":{"volumes":[{"name":"a"},{"name":"b"}]}}`,
	},
	{
		name: "extend an empty list", before: `{"spec":{"volumes":[]}}`, edit: extendVolumes,
		operations: []string{"add /spec/volumes"}, after: `{"spec":{"volumes":[{"name":"a"},{"name":"b"}]}}`,
	},
	{
		name: "extend keeps unknown fields", before: `{"spec":{"volumes":[{"name":"x","future":1}]}}`, edit: extendVolumes,
		operations: []string{"add /spec/volumes/-", "add /spec/volumes/-"},
		after:      `{"spec":{"volumes":[{"name":"x","future":1},{"name":"a"},{"name":"b"}]}}`,
	},
	{
		name: "drop nothing", before: `{"spec":{"volumes":[{"name":"x"}]}}`, edit: dropVolumes("a"),
		after: `{"spec":{"volumes":[{"name":"x"}]}}`,
	},
	{
		name: "drop from no list", before: `{"spec":{"volumes":null}}`, edit: dropVolumes("a"), after: `{"spec":{"volumes":null}}`,
	},
	{
		name:       "drop from the end, so that no index shifts",
		before:     `{"spec":{"volumes":[{"name":"a"},{"name":"x","future":1},{"name":"b"},{"name":"b"},{"name":"y"}]}}`,
		edit:       dropVolumes("a", "b"),
		operations: []string{"remove /spec/volumes/3", "remove /spec/volumes/2", "remove /spec/volumes/0"},
		after:      `{"spec":{"volumes":[{"name":"x","future":1},{"name":"y"}]}}`,
	},
	{
		name: "drop all, and the list", before: `{"spec":{"volumes":[{"name":"a"},{"name":"b"}],"nodeName":"n"}}`,
		edit:       dropVolumes("a", "b"),
		operations: []string{"remove /spec/volumes"}, after: `{"spec":{"nodeName":"n"}}`,
	},
	{
		name: "drop all and extend", before: `{"spec":{"volumes":[{"name":"a"}]}}`,
		edit:       func(e *Edit) { dropVolumes("a")(e); extendVolumes(e) },
		operations: []string{"remove /spec/volumes", "add /spec/volumes"},
		after:      `{"spec":{"volumes":[{"name":"a"},{"name":"b"}]}}`,
	},
	{
		name: "keep an integer beyond float64", before: `{"spec":{"activeDeadlineSeconds":9007199254740993}}`, edit: extendVolumes,
		operations: []string{"add /spec/volumes"},
		after:      `{"spec":{"activeDeadlineSeconds":9007199254740993,"volumes":[{"name":"a"},{"name":"b"}]}}`,
	},
}

const oddKey = "sidecar.istio.io/a~b"

func annotateOdd(e *Edit) { e.annotate(map[string]string{oddKey: "1"}) }

var annotationCases = []editCase{
	{
		name: "annotate a pod without metadata", before: `{"spec":{"x":1}}`, edit: annotateOdd,
		operations: []string{"add /metadata"}, after: `{"metadata":{"annotations":{"sidecar.istio.io/a~b":"1"}},"spec":{"x":1}}`,
	},
	{
		name: "annotate a pod whose metadata is null", before: `{"metadata":null}`, edit: annotateOdd,
		operations: []string{"add /metadata"}, after: `{"metadata":{"annotations":{"sidecar.istio.io/a~b":"1"}}}`,
	},
	{
		name: "annotate a pod without annotations", before: `{"metadata":{"name":"p","future":1}}`, edit: annotateOdd,
		operations: []string{"add /metadata/annotations"},
		after:      `{"metadata":{"name":"p","future":1,"annotations":{"sidecar.istio.io/a~b":"1"}}}`,
	},
	{
		name: "annotate a pod whose annotations are null", before: `{"metadata":{"name":"p","annotations":null}}`, edit: annotateOdd,
		operations: []string{"add /metadata/annotations"},
		after:      `{"metadata":{"name":"p","annotations":{"sidecar.istio.io/a~b":"1"}}}`,
	},
	{
		name: "annotate a pod whose annotations are empty", before: `{"metadata":{"name":"p","annotations":{}}}`, edit: annotateOdd,
		operations: []string{"add /metadata/annotations"},
		after:      `{"metadata":{"name":"p","annotations":{"sidecar.istio.io/a~b":"1"}}}`,
	},
	{
		name: "escape the key", before: `{"metadata":{"annotations":{"k":"v"}}}`, edit: annotateOdd,
		operations: []string{"add /metadata/annotations/sidecar.istio.io~1a~0b"},
		after:      `{"metadata":{"annotations":{"k":"v","sidecar.istio.io/a~b":"1"}}}`,
	},
	{
		name: "replace a value", before: `{"metadata":{"annotations":{"sidecar.istio.io/a~b":"0"}}}`, edit: annotateOdd,
		operations: []string{"replace /metadata/annotations/sidecar.istio.io~1a~0b"},
		after:      `{"metadata":{"annotations":{"sidecar.istio.io/a~b":"1"}}}`,
	},
	{
		name: "annotate twice", before: `{"metadata":{"name":"p"}}`,
		edit: func(e *Edit) { annotateOdd(e); e.annotate(map[string]string{"~/": "", oddKey: "2"}) },
		operations: []string{"add /metadata/annotations", "replace /metadata/annotations/sidecar.istio.io~1a~0b",
			"add /metadata/annotations/~0~1"},
		after: `{"metadata":{"name":"p","annotations":{"sidecar.istio.io/a~b":"2","~/":""}}}`,
	},
	{
		name: "unannotate nothing", before: `{"metadata":{"annotations":{"k":"v"}}}`, edit: func(e *Edit) { e.unannotate() },
		after: `{"metadata":{"annotations":{"k":"v"}}}`,
	},
	{
		name: "unannotate one", before: `{"metadata":{"annotations":{"k":"v","sidecar.istio.io/a~b":"1"}}}`,
		edit:       func(e *Edit) { e.unannotate(oddKey) },
		operations: []string{"remove /metadata/annotations/sidecar.istio.io~1a~0b"},
		after:      `{"metadata":{"annotations":{"k":"v"}}}`,
	},
	{
		name: "unannotate all", before: `{"metadata":{"name":"p","annotations":{"k":"v","sidecar.istio.io/a~b":"1"}}}`,
		edit:       func(e *Edit) { e.unannotate(oddKey, "k") },
		operations: []string{"remove /metadata/annotations"},
		after:      `{"metadata":{"name":"p"}}`,
	},
	{
		name: "unannotate all and annotate a pod without other metadata", before: `{"metadata":{"annotations":{"k":"v"}}}`,
		edit:       func(e *Edit) { e.unannotate("k"); annotateOdd(e) },
		operations: []string{"remove /metadata/annotations", "add /metadata"},
		after:      `{"metadata":{"annotations":{"sidecar.istio.io/a~b":"1"}}}`,
	},
}

func applySysctls(e *Edit) { (&Sysctls{{Name: UnprivilegedSysctl, Value: "0"}}).apply(e) }

func undoSysctls(e *Edit) {
	(*Sysctls)(nil).undo(e, Status{Sysctls: []string{UnprivilegedSysctl, "kernel.other"}})
}

const unprivilegedJSON = `{"name":"net.ipv4.ip_unprivileged_port_start","value":"0"}`

var sysctlCases = []editCase{
	{
		name: "set a sysctl without a security context", before: `{"spec":{}}`, edit: applySysctls,
		operations: []string{"add /spec/securityContext"}, after: `{"spec":{"securityContext":{"sysctls":[` + unprivilegedJSON + `]}}}`,
	},
	{
		name: "set a sysctl where the security context is null", before: `{"spec":{"securityContext":null}}`, edit: applySysctls,
		operations: []string{"add /spec/securityContext"}, after: `{"spec":{"securityContext":{"sysctls":[` + unprivilegedJSON + `]}}}`,
	},
	{
		name: "set a sysctl in a security context", before: `{"spec":{"securityContext":{"future":1}}}`, edit: applySysctls,
		operations: []string{"add /spec/securityContext/sysctls"},
		after:      `{"spec":{"securityContext":{"future":1,"sysctls":[` + unprivilegedJSON + `]}}}`,
	},
	{
		name: "set a sysctl beside others", before: `{"spec":{"securityContext":{"sysctls":[{"name":"x","value":"1","future":1}]}}}`,
		edit: applySysctls, operations: []string{"add /spec/securityContext/sysctls/-"},
		after: `{"spec":{"securityContext":{"sysctls":[{"name":"x","value":"1","future":1},` + unprivilegedJSON + `]}}}`,
	},
	{
		name: "undo without a security context", before: `{"spec":{}}`, edit: undoSysctls, after: `{"spec":{}}`,
	},
	{
		name: "undo the only sysctl", before: `{"spec":{"securityContext":{"sysctls":[` + unprivilegedJSON + `]}}}`, edit: undoSysctls,
		operations: []string{"remove /spec/securityContext"}, after: `{"spec":{}}`,
	},
	{
		name:   "undo the only sysctl of a security context",
		before: `{"spec":{"securityContext":{"runAsUser":1,"future":1,"sysctls":[` + unprivilegedJSON + `]}}}`, edit: undoSysctls,
		operations: []string{"remove /spec/securityContext/sysctls"}, after: `{"spec":{"securityContext":{"runAsUser":1,"future":1}}}`,
	},
	{
		name:       "undo keeps a recorded sysctl that no injector sets",
		before:     `{"spec":{"securityContext":{"sysctls":[{"name":"kernel.other","value":"1"},` + unprivilegedJSON + `]}}}`,
		edit:       undoSysctls,
		operations: []string{"remove /spec/securityContext/sysctls/1"},
		after:      `{"spec":{"securityContext":{"sysctls":[{"name":"kernel.other","value":"1"}]}}}`,
	},
}

func appLiveness() Probe {
	return Probe{Container: "app", Kind: "livenessProbe", Port: intstr.FromInt32(80)}
}

func applyProbe(e *Edit) { (&Probes{{appLiveness(), []string{ProbeProgram, "probe"}}}).apply(e) }

func undoProbe(e *Edit) { (*Probes)(nil).undo(e, Status{Probes: []Probe{appLiveness()}}) }

const (
	onlyApp   = `{"spec":{"containers":[{"name":"app",`
	execJSON  = `"exec":{"command":["` + ProbeProgram + `","probe"]}`
	mountJSON = `{"name":"shunt-shared","readOnly":true,"mountPath":"/shunt"}`
)

var probeCases = []editCase{
	{
		name: "replace a probe",
		before: `{"spec":{"containers":[{"name":"x"},` +
			`{"name":"app","livenessProbe":{"tcpSocket":{"port":80},"future":1,"periodSeconds":5}}]}}`,
		edit: applyProbe,
		operations: []string{
			"remove /spec/containers/1/livenessProbe/tcpSocket", "add /spec/containers/1/livenessProbe/exec",
			"add /spec/containers/1/volumeMounts",
		},
		after: `{"spec":{"containers":[{"name":"x"},{"name":"app","livenessProbe":{` + execJSON + `,"future":1,"periodSeconds":5},` +
			`"volumeMounts":[` + mountJSON + `]}]}}`,
	},
	{
		name:   "replace a probe where the other handlers are null, and mount behind the container's own",
		before: onlyApp + `"livenessProbe":{"tcpSocket":{"port":80},"exec":null},"volumeMounts":[{"name":"v","mountPath":"/v"}]}]}}`,
		edit:   applyProbe,
		operations: []string{
			"remove /spec/containers/0/livenessProbe/tcpSocket", "add /spec/containers/0/livenessProbe/exec",
			"add /spec/containers/0/volumeMounts/-",
		},
		after: onlyApp + `"livenessProbe":{` + execJSON + `},` +
			`"volumeMounts":[{"name":"v","mountPath":"/v"},` + mountJSON + `]}]}}`,
	},
	{
		name:   "leave the API server to deny a probe of two kinds",
		before: onlyApp + `"livenessProbe":{"tcpSocket":{"port":80},"httpGet":{"port":80}}}]}}`,
		edit:   applyProbe,
		operations: []string{
			"remove /spec/containers/0/livenessProbe/tcpSocket", "add /spec/containers/0/livenessProbe/exec",
			"add /spec/containers/0/volumeMounts",
		},
		after: onlyApp + `"livenessProbe":{` + execJSON + `,"httpGet":{"port":80}},"volumeMounts":[` + mountJSON + `]}]}}`,
	},
	{
		name:   "undo a probe",
		before: onlyApp + `"livenessProbe":{` + execJSON + `,"future":1},"volumeMounts":[` + mountJSON + `]}]}}`,
		edit:   undoProbe,
		operations: []string{
			"remove /spec/containers/0/livenessProbe/exec", "add /spec/containers/0/livenessProbe/tcpSocket",
			"remove /spec/containers/0/volumeMounts",
		},
		after: onlyApp + `"livenessProbe":{"tcpSocket":{"port":80},"future":1}}]}}`,
	},
	{
		name:   "undo leaves another program's probe",
		before: onlyApp + `"livenessProbe":{"exec":{"command":["x"]}}}]}}`,
		edit:   undoProbe,
		after:  onlyApp + `"livenessProbe":{"exec":{"command":["x"]}}}]}}`,
	},
	{
		name: "undo the probe of a container that is gone", before: `{"spec":{"containers":[{"name":"x"}]}}`,
		edit: undoProbe, after: `{"spec":{"containers":[{"name":"x"}]}}`,
	},
}

// TestEdit applies an Edit's operations to the pod's JSON: that gives the
// wanted JSON, and the pod that the Edit returns. The pod that the Edit began
// with is unchanged.
func TestEdit(t *testing.T) {
	for group, tests := range map[string][]editCase{
		"lists": listCases, "annotations": annotationCases, "sysctls": sysctlCases, "probes": probeCases,
	} {
		for _, test := range tests {
			t.Run(group+"/"+test.name, func(t *testing.T) { checkEdit(t, test) })
		}
	}
}

func checkEdit(t *testing.T, test editCase) {
	t.Helper()
	pod, untouched := podOf(t, test.before), podOf(t, test.before)
	edit := &Edit{pod: *pod}
	test.edit(edit)

	var operations []string
	for _, operation := range edit.Operations() {
		operations = append(operations, operation.Op+" "+operation.Path)
	}
	if diff := cmp.Diff(test.operations, operations); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
	patch, err := jsonpatch.DecodePatch(EncodePatch(edit.Operations()))
	if err != nil {
		t.Fatal(err)
	}
	patched, err := patch.Apply([]byte(test.before))
	if err != nil {
		t.Fatalf("apply %s: %v", EncodePatch(edit.Operations()), err)
	}
	if !jsonpatch.Equal([]byte(test.after), patched) {
		t.Errorf("patched: %s\nwant:    %s", patched, test.after)
	}
	if want := podOf(t, string(patched)); !equality.Semantic.DeepEqual(want, edit.Pod()) {
		t.Errorf("Pod() is not what the operations make (-patched +Pod):\n%s", cmp.Diff(want, edit.Pod()))
	}
	if diff := cmp.Diff(untouched, pod); diff != "" {
		t.Errorf("the edit changed the pod that it began with (-before +after):\n%s", diff)
	}
}

func podOf(t *testing.T, text string) *corev1.Pod {
	t.Helper()
	var pod corev1.Pod
	if err := json.Unmarshal([]byte(text), &pod); err != nil {
		t.Fatal(err)
	}
	return &pod
}
