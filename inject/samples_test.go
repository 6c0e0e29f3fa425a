package inject_test

import (
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
)

const samplesDir = "../config/samples"

func readSample(t *testing.T, name string, into any) {
	text, err := os.ReadFile(filepath.Join(samplesDir, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// TestSamples: the pods that the demo and the documents show are injected in
// the mode that they are named after.
func TestSamples(t *testing.T) {
	var ns corev1.Namespace
	readSample(t, "namespace.yaml", &ns)
	for name, mode := range map[string]interception.Mode{
		"redirect.yaml": interception.ModeRedirect, "tproxy.yaml": interception.ModeTProxy,
	} {
		var pod corev1.Pod
		readSample(t, name, &pod)
		if pod.Namespace != ns.Name {
			t.Errorf("%s: the pod is in %s, the sample namespace is %s", name, pod.Namespace, ns.Name)
		}
		result := inject.Inject(&pod, annotation.Namespace{Name: ns.Name, Labels: ns.Labels}, config.Default())
		if !result.Inject || len(result.Warnings) > 0 {
			t.Fatalf("%s: %s %v %v", name, result.Reason, result.Errors, result.Warnings)
		}
		if result.Plan.Mode != mode {
			t.Errorf("%s: mode %s, want %s", name, result.Plan.Mode, mode)
		}
	}
}
