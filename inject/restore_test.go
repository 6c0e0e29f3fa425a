package inject_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// sameRestored compares what Kubernetes can tell apart: a security context
// that says nothing is as good as none.
var sameRestored = cmp.Options{cmpopts.EquateEmpty(), cmp.Transformer("context", func(pod corev1.PodSpec) corev1.PodSpec {
	if cmp.Equal(pod.SecurityContext, &corev1.PodSecurityContext{}, cmpopts.EquateEmpty()) {
		pod.SecurityContext = nil
	}
	return pod
})}

// TestRestore: of every case that is injected, what was before is what Restore
// gives; of a pod that has an earlier injection, what was before that.
func TestRestore(t *testing.T) {
	restored := 0
	for _, c := range loadCases(t) {
		want := c.Pod
		if earlier, ok := inject.Restore(c.Pod); ok {
			want = earlier.Pod()
		}
		result := inject.Inject(c.Pod, c.Namespace, c.Config)
		if !result.Inject {
			continue
		}
		restored++
		before := result.Pod.DeepCopy()
		got, ok := inject.Restore(result.Pod)
		if !ok {
			t.Errorf("%s: not known to be injected", c.Name)
			continue
		}
		if diff := cmp.Diff(want, got.Pod(), sameRestored); diff != "" {
			t.Errorf("%s (-before injection +restored):\n%s", c.Name, diff)
		}
		checkMade(t, c.Name, result.Pod, got.Operations(), got.Pod())
		if diff := cmp.Diff(before, result.Pod); diff != "" {
			t.Errorf("%s: Restore changed its input (-before +after):\n%s", c.Name, diff)
		}
		if twice, ok := inject.Restore(got.Pod()); ok {
			t.Errorf("%s: restored once more: %v", c.Name, twice.Pod())
		}
	}
	if restored < 40 {
		t.Errorf("only %d cases are injected", restored)
	}
}

func TestRestoreLeavesOthersAlone(t *testing.T) {
	for _, status := range []string{
		`{"initContainers":["istio-init"],"containers":["istio-proxy"],"revision":"default"}`, // Istio's
		`{"initContainers":["shunt-init"],"version":"0"}`, "injected", "",
	} {
		pod := &corev1.Pod{}
		pod.Annotations = map[string]string{podplan.StatusKey: status}
		if got, ok := inject.Restore(pod); ok {
			t.Errorf("status %q: restored to %v", status, got.Pod())
		}
	}
	if got, ok := inject.Restore(&corev1.Pod{}); ok {
		t.Errorf("without a status: restored to %v", got.Pod())
	}
}

// TestRestoreTakesNoProbe: a status says what a probe was before, but a probe
// that does not run shunt-init is not of the injector's.
func TestRestoreTakesNoProbe(t *testing.T) {
	own := corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/true"}}}
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Name: "app", LivenessProbe: &corev1.Probe{ProbeHandler: own}, ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
			Exec: &corev1.ExecAction{Command: []string{"/shunt/shunt-init", "probe", "--port", "80"}},
		}},
	}}}}
	pod.Annotations = map[string]string{podplan.StatusKey: `{"version":"1","probes":[
		{"container":"app","probe":"livenessProbe","port":80},{"container":"app","probe":"readinessProbe","port":"web"},
		{"container":"app","probe":"startupProbe","port":80},{"container":"gone","probe":"livenessProbe","port":80},
		{"container":"app","probe":"noProbe","port":80}]}`}
	got, ok := inject.Restore(pod)
	if !ok {
		t.Fatal("not known to be injected")
	}
	app := got.Pod().Spec.Containers[0]
	if diff := cmp.Diff(own, app.LivenessProbe.ProbeHandler); diff != "" {
		t.Errorf("the pod's own probe (-before +restored):\n%s", diff)
	}
	want := corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("web")}}
	if diff := cmp.Diff(want, app.ReadinessProbe.ProbeHandler); diff != "" {
		t.Errorf("shunt-init's (-want +restored):\n%s", diff)
	}
	if app.StartupProbe != nil {
		t.Errorf("a probe that was not there: %v", app.StartupProbe)
	}
}
