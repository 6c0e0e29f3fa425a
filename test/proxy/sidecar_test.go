package proxy

import (
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject"
)

var modes = []interception.Mode{interception.ModeRedirect, interception.ModeTProxy, interception.ModeNone}

var allFamilies = [][]corev1.IPFamily{
	{corev1.IPv4Protocol, corev1.IPv6Protocol}, {corev1.IPv4Protocol}, {corev1.IPv6Protocol},
}

// envoyBinary returns the path of Envoy.
func envoyBinary(t *testing.T) string {
	t.Helper()
	return programIn(t, "ENVOY")
}

// programIn returns the path of a program that a variable names. Without one
// the test is skipped, but in CI it fails.
func programIn(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path != "" {
		return path
	}
	reason := "this test runs a proxy, and " + variable + " names no program; run it by `make test-proxy`"
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
	return ""
}

// sidecar injects a pod and returns the proxy's container.
func sidecar(t *testing.T, mode interception.Mode, families []corev1.IPFamily) corev1.Container {
	cfg := inject.DefaultConfig()
	cfg.IPFamilies = families
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "echo", Namespace: "demo",
			Labels:      map[string]string{inject.InjectKey: "true"},
			Annotations: map[string]string{inject.InterceptionModeKey: string(mode)},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	result := inject.Inject(pod, inject.Namespace{Name: "demo"}, cfg)
	if !result.Inject {
		t.Fatalf("the pod was not injected: %s %v", result.Reason, result.Errors)
	}
	for _, container := range result.Pod.Spec.InitContainers {
		if container.Name == inject.ProxyContainerName {
			return container
		}
	}
	t.Fatal("the injected pod has no proxy")
	return corev1.Container{}
}

// commandLine is what kubelet makes of the container's arguments.
func commandLine(container corev1.Container) []string {
	expand := strings.NewReplacer("$(POD_NAME)", "echo", "$(POD_NAMESPACE)", "demo", "$$", "$")
	args := make([]string, len(container.Args))
	for i, arg := range container.Args {
		args[i] = expand.Replace(arg)
	}
	return args
}
