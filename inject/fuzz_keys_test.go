package inject_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/cases"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// fuzzedPod has some of what an injection has to do with: probes, a volume,
// other init containers, a sysctl.
func fuzzedPod() *corev1.Pod {
	port := intstr.FromInt32(8080)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "echo", Namespace: "demo", Labels: map[string]string{}, Annotations: map[string]string{}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64(30)),
			SecurityContext: &corev1.PodSecurityContext{
				Sysctls: []corev1.Sysctl{{Name: "net.ipv4.tcp_keepalive_time", Value: "60"}},
			},
			InitContainers: []corev1.Container{{Name: "before", Image: "app"}},
			Containers: []corev1.Container{{
				Name: "app", Image: "app", VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
				Ports:          []corev1.ContainerPort{{ContainerPort: 8080}},
				LivenessProbe:  &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: port}}},
				ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: port}}},
			}},
			Volumes: []corev1.Volume{{Name: "data"}},
		},
	}
}

// FuzzKeys: whatever stands under any two keys of the table, in any of their
// places, the pod is left alone, or refused with a reason for each error, or
// injected: then the patch says what Inject does, a second time changes
// nothing, and what was before can be given back.
func FuzzKeys(f *testing.F) {
	rows := annotation.Table()
	for i, row := range rows {
		for j := range row.Places {
			f.Add(uint8(i), uint8(j), "true", uint8(i+1), uint8(0), "TPROXY")
			f.Add(uint8(i), uint8(j), "8080", uint8(i+2), uint8(1), "false")
		}
	}
	for i := range rows {
		for _, value := range []string{
			"concurrency: 2\nholdApplicationUntilProxyStarts: true",
			"proxyStatsMatcher: {inclusionPrefixes: [a], inclusionRegexps: ['.*$']}",
			`{"a":{"emptyDir":{}}}`, `{"a":{"mountPath":"/a"}}`,
			"100m", "1Gi", "custom", "sidecar,custom",
			"off", "http:debug,config:info", "10s", "eth0,tun+", "10.0.0.0/8, ::/0", "1-65535", "none", "default", "example.org/a:b",
		} {
			f.Add(uint8(i), uint8(i), value, uint8(0), uint8(0), "true")
		}
	}
	cfg := config.Default()
	cfg.AllowedProxyImages = []string{"example.org"}
	cfg.Templates = map[string]config.Template{"custom": {
		Container: &corev1.Container{Env: []corev1.EnvVar{{Name: "A", Value: "1"}}}, Volumes: []corev1.Volume{{Name: "of-template"}},
	}}
	if errs := inject.ValidateConfig(cfg); len(errs) > 0 {
		f.Fatal(errs)
	}
	injector := inject.NewInjector(cfg)
	f.Fuzz(func(t *testing.T, firstKey, firstPlace uint8, first string, secondKey, secondPlace uint8, second string) {
		pod := fuzzedPod()
		ns := annotation.Namespace{Name: "demo", Annotations: map[string]string{}, Labels: map[string]string{}}
		ns.Labels[annotation.NamespaceInjectionKey] = annotation.NamespaceEnabled
		for _, set := range []struct {
			key, place uint8
			value      string
		}{{firstKey, firstPlace, first}, {secondKey, secondPlace, second}} {
			row := rows[int(set.key)%len(rows)]
			if row.Key == podplan.StatusKey || row.Key == podplan.RulesKey || len(row.Places) == 0 {
				continue // of which cases and FuzzHandler have enough
			}
			map[annotation.Place]map[string]string{
				annotation.PodAnnotation: pod.Annotations, annotation.PodLabel: pod.Labels,
				annotation.NamespaceAnnotation: ns.Annotations, annotation.NamespaceLabel: ns.Labels,
			}[row.Places[int(set.place)%len(row.Places)]][row.Key] = set.value
		}
		checkInjection(t, injector, pod, ns)
	})
}

// budget is for an injection, which prints a bootstrap where it is of a new kind.
var budget = cases.Budget{Memory: 32 << 20, MemoryPerByte: 2 << 10, Time: 2 * time.Second, TimePerByte: 10 * time.Microsecond}

// size is that of what a namespace says.
func size(ns annotation.Namespace) int {
	bytes := 0
	for _, values := range []map[string]string{ns.Annotations, ns.Labels} {
		for key, value := range values {
			bytes += len(key) + len(value)
		}
	}
	return bytes
}

func checkInjection(t *testing.T, injector *inject.Injector, pod *corev1.Pod, ns annotation.Namespace) {
	t.Helper()
	before := encoded(t, pod)
	var result inject.Result
	if err := budget.Check(len(before)+size(ns), func() { result = injector.Inject(pod, ns) }); err != nil {
		t.Fatal(err)
	}
	if after := encoded(t, pod); !bytes.Equal(before, after) {
		t.Fatalf("the pod is changed from\n%s\nto\n%s", before, after)
	}
	if result.Denied() != result.Reason.Denies() || result.Inject != (result.Pod != nil) || result.Reason == "" {
		t.Fatalf("contradicts itself: %+v", result)
	}
	for _, err := range result.Errors {
		if err.Field == "" || err.Detail == "" {
			t.Fatalf("an error without a path or a word: %v", err)
		}
	}
	if result.Inject {
		checkInjected(t, injector, pod, ns, result.Pod)
	}
}

func checkInjected(t *testing.T, injector *inject.Injector, pod *corev1.Pod, ns annotation.Namespace, injected *corev1.Pod) {
	t.Helper()
	before := encoded(t, pod)
	operations := injector.Inject(pod, ns).Operations
	patch, err := jsonpatch.DecodePatch(podplan.EncodePatch(operations))
	if err != nil {
		t.Fatal(err)
	}
	patched, err := patch.Apply(before)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again(t, patched), encoded(t, injected)) {
		checkPatch(t, injector, pod, ns, injected) // says what differs
	}
	if second := injector.Inject(injected, ns); second.Reason != inject.ReasonAlreadyInjected {
		t.Fatalf("the second time: %s %v", second.Reason, second.Errors)
	}
	restored, ok := inject.Restore(injected)
	if !ok {
		t.Fatal("it is not known to be injected")
	}
	if !bytes.Equal(before, encoded(t, restored.Pod())) {
		if diff := cmp.Diff(pod, restored.Pod(), sameRestored); diff != "" {
			t.Fatalf("(-before injection +restored):\n%s", diff)
		}
	}
}

func encoded(t *testing.T, pod *corev1.Pod) []byte {
	t.Helper()
	text, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// again is a pod's JSON as Go writes it.
func again(t *testing.T, text []byte) []byte {
	t.Helper()
	var pod corev1.Pod
	if err := json.Unmarshal(text, &pod); err != nil {
		t.Fatal(err)
	}
	return encoded(t, &pod)
}
