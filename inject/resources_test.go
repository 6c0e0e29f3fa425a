package inject_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/cases"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// proxyOf is the proxy's container of an injected pod.
func proxyOf(t *testing.T, pod *corev1.Pod) *corev1.Container {
	t.Helper()
	for i, c := range pod.Spec.InitContainers {
		if c.Name == podplan.ProxyContainerName {
			return &pod.Spec.InitContainers[i]
		}
	}
	t.Fatal("there is no proxy in the pod")
	return nil
}

// changed injects a pod that has the first annotations, does to it what is
// given, and injects it again, now with the others.
func changed(t *testing.T, cfg config.Config, first, then map[string]string, meanwhile func(*corev1.Pod)) inject.Result {
	t.Helper()
	pod := cases.Small()
	pod.Annotations = first
	once := inject.Inject(pod, enabled, cfg)
	if !once.Inject {
		t.Fatalf("%s %v", once.Reason, once.Errors)
	}
	for key := range first {
		delete(once.Pod.Annotations, key)
	}
	for key, value := range then {
		once.Pod.Annotations[key] = value
	}
	if meanwhile != nil {
		meanwhile(once.Pod)
	}
	return inject.Inject(once.Pod, enabled, cfg)
}

// TestChangedSettingIsBroughtIntoLine: an injected pod whose annotation is
// another now gets what that says.
func TestChangedSettingIsBroughtIntoLine(t *testing.T) {
	for _, order := range []config.NativeSidecar{config.NativeSidecarEnabled, config.NativeSidecarDisabled} {
		cfg := config.Default()
		cfg.NativeSidecar = order
		cfg.Templates = map[string]config.Template{"debug": {Container: &corev1.Container{Image: "debug"}}}
		t.Run(string(order), func(t *testing.T) { testChangedSettings(t, cfg) })
	}
}

func testChangedSettings(t *testing.T, cfg config.Config) {
	for key, values := range map[string][2]string{
		annotation.ProxyCPUKey:                 {"200m", "300m"},
		annotation.ProxyCPULimitKey:            {"2", "3"},
		annotation.ProxyMemoryKey:              {"128Mi", "256Mi"},
		annotation.ProxyMemoryLimitKey:         {"1Gi", "2Gi"},
		annotation.HealthPortKey:               {"8888", "0"},
		annotation.ProxyConfigKey:              {"concurrency: 1", "concurrency: 2"},
		annotation.TemplatesKey:                {"sidecar", "sidecar,debug"},
		annotation.BootstrapOverrideKey:        {"a", "b"},
		annotation.UserVolumeKey:               {`{"a":{"emptyDir":{}}}`, `{"a":{"configMap":{"name":"a"}}}`},
		annotation.ReadinessInitialDelayKey:    {"1", "0"},
		annotation.ReadinessPeriodKey:          {"15", "10"},
		annotation.ReadinessFailuresKey:        {"1", "2"},
		annotation.RerouteVirtualInterfacesKey: {"net1", "net2"},
	} {
		first, then := map[string]string{key: values[0]}, map[string]string{key: values[1]}
		if got := changed(t, cfg, first, then, nil); got.Reason != inject.ReasonInjected {
			t.Errorf("%s from %s to %s: %s", key, values[0], values[1], got.Reason)
		}
		if got := changed(t, cfg, first, first, nil); got.Reason != inject.ReasonAlreadyInjected {
			t.Errorf("%s still %s: %s", key, values[0], got.Reason)
		}
	}
}

// TestSameQuantityIsNoChange: quantities are compared by what they say, and an
// API server makes requests of limits.
func TestSameQuantityIsNoChange(t *testing.T) {
	first := map[string]string{annotation.ProxyCPUKey: "0.5", annotation.ProxyMemoryLimitKey: "2Gi"}
	then := map[string]string{annotation.ProxyCPUKey: "500m", annotation.ProxyMemoryLimitKey: "2048Mi"}
	if got := changed(t, config.Default(), first, then, nil); got.Reason != inject.ReasonAlreadyInjected {
		t.Errorf("the same in other words: %s", got.Reason)
	}
	cfg := config.Default()
	cfg.ProxyResources.Requests = nil
	defaulted := func(pod *corev1.Pod) {
		made := &proxyOf(t, pod).Resources
		made.Requests = made.Limits.DeepCopy()
		made.Limits["ephemeral-storage"] = resource.MustParse("1Gi") // by a LimitRange
	}
	first = map[string]string{annotation.ProxyCPULimitKey: "3"}
	if got := changed(t, cfg, first, first, defaulted); got.Reason != inject.ReasonAlreadyInjected {
		t.Errorf("requests made of limits: %s", got.Reason)
	}
	got := changed(t, cfg, first, map[string]string{annotation.ProxyCPULimitKey: "4"}, defaulted)
	if got.Reason != inject.ReasonInjected {
		t.Fatalf("another limit than the requests are made of: %s", got.Reason)
	}
	if limit := proxyOf(t, got.Pod).Resources.Limits[corev1.ResourceCPU]; limit.String() != "4" {
		t.Errorf("the limit is %s, want 4", &limit)
	}
}
