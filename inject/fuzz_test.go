package inject_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
)

// FuzzAnnotations: whatever a pod's owner writes, the pod is refused, or the
// init container has arguments that mean exactly what was planned.
func FuzzAnnotations(f *testing.F) {
	f.Add("REDIRECT", "*", "22", "80,443", "25", "10.0.0.0/8,fd00::/8", "10.1.1.1", "net1", "tun+",
		"all", "declared", "6033", "5s", "http:debug")
	f.Add("TPROXY", "", "1-65535", "", "", "*", "", "", "", "resolvers", "all", "", "1ms", "a:off,b:trace")
	f.Add("NONE", "8080\" -x", "--remove", "$(POD_NAME)", "$$", "\n", "::/0", "-c", "a b", "none", "$$", "$(X)", "-1s", "http:$(X)")
	f.Fuzz(func(t *testing.T, mode, inPorts, exPorts, outPorts, exOutPorts, ranges, exRanges, exInterfaces, virtual,
		dns, detection, httpPorts, drain, components string,
	) {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Labels: map[string]string{annotation.InjectKey: "true"},
				Annotations: map[string]string{
					annotation.InterceptionModeKey:        mode,
					annotation.IncludeInboundPortsKey:     inPorts,
					annotation.ExcludeInboundPortsKey:     exPorts,
					annotation.IncludeOutboundPortsKey:    outPorts,
					annotation.ExcludeOutboundPortsKey:    exOutPorts,
					annotation.IncludeOutboundIPRangesKey: ranges,
					annotation.ExcludeOutboundIPRangesKey: exRanges,
					annotation.ExcludeInterfacesKey:       exInterfaces,
					annotation.KubevirtInterfacesKey:      virtual,
					annotation.DNSCaptureKey:              dns,
					annotation.ProtocolDetectionKey:       detection,
					annotation.HTTPPortsKey:               httpPorts,
					annotation.ProxyConfigKey:             "terminationDrainDuration: " + drain,
					annotation.ComponentLogLevelKey:       components,
				},
			},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}},
		}
		var result inject.Result
		if err := budget.Check(len(encoded(t, pod)), func() {
			result = inject.Inject(pod, annotation.Namespace{}, config.Default())
		}); err != nil {
			t.Fatal(err)
		}
		if result.Denied() {
			if result.Inject || result.Pod != nil || result.Reason != inject.ReasonInvalidAnnotation {
				t.Fatalf("refused, and yet: %+v", result)
			}
			return
		}
		if !result.Inject {
			t.Fatalf("neither injected nor refused: %+v", result)
		}
		checkArguments(t, result)
		if again := inject.Inject(result.Pod, annotation.Namespace{}, config.Default()); again.Reason != inject.ReasonAlreadyInjected {
			t.Fatalf("the second time: %+v", again)
		}
	})
}

func checkArguments(t *testing.T, result inject.Result) {
	t.Helper()
	plan, proxy := result.Plan, result.Plan.Containers.Proxy()
	if words := strings.Join(proxy.Args, ""); strings.Count(words, "$") != 2 || strings.Contains(words, "\n") {
		t.Fatalf("arguments of the proxy that Kubernetes would change: %q", proxy.Args)
	}
	args := result.Pod.Spec.InitContainers[0].Args
	if strings.ContainsAny(strings.Join(args, ""), "$\n") {
		t.Fatalf("arguments that Kubernetes would change: %q", args)
	}
	if plan.Mode == interception.ModeNone {
		return
	}
	spec, opts, err := interception.ParseArgs(args)
	if err != nil {
		t.Fatalf("shunt-init would refuse %q: %v", args, err)
	}
	if diff := cmp.Diff(plan.Spec, spec, cmpPrefixes); diff != "" {
		t.Fatalf("planned and parsed spec (-planned +parsed):\n%s", diff)
	}
	if diff := cmp.Diff(plan.Options, opts); diff != "" {
		t.Fatalf("planned and parsed options (-planned +parsed):\n%s", diff)
	}
}

// FuzzConfig: whatever a configuration file holds, it is refused with a reason,
// or is a configuration that pods can be injected by.
func FuzzConfig(f *testing.F) {
	f.Add(configType + "concurrency: 3\nproxyResources:\n  limits: {cpu: 1}\n")
	f.Add(configType + "sidecar:\n  type: custom\n  container:\n    image: haproxy\n    env:\n    - {name: A, value: 1}\n")
	f.Add(configType + "alwaysInjectSelector:\n- matchLabels: {a: b}\n  matchExpressions: [{key: c, operator: NotIn, values: [d]}]\n")
	f.Add(configType + "templates:\n  a: {container: {image: x, lifecycle: {preStop: {sleep: {seconds: 1}}}}}\n" +
		"  b: {volumes: [{name: v}]}\n")
	f.Add(configType + "a: &a [*a]\nb: {<<: *a}\n? [x]\n: y\n")
	f.Add(`{"apiVersion":"shunt.dev/v1alpha1","kind":"InjectorConfiguration","drainDuration":1e9,"imagePullSecrets":[null,{}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var cfg config.Config
		var err error
		if over := budget.Check(len(text), func() { cfg, err = inject.ParseConfig([]byte(text)) }); over != nil {
			t.Fatal(over)
		}
		if err != nil {
			if err.Error() == "" {
				t.Error("refused without a reason")
			}
			return
		}
		if errs := inject.ValidateConfig(cfg); len(errs) > 0 {
			t.Errorf("accepted, and is not valid: %v", errs)
		}
		if _, err := config.Fields([]byte(text)); err != nil {
			t.Errorf("accepted, and nothing is known of its fields: %v", err)
		}
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "echo", Labels: map[string]string{annotation.InjectKey: "true"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
		}
		templates := slices.Concat([]string{"sidecar"}, slices.Sorted(maps.Keys(cfg.Templates)))
		pod.Annotations = map[string]string{annotation.TemplatesKey: strings.Join(templates, ",")}
		result := inject.NewInjector(cfg).Inject(pod, annotation.Namespace{Name: "demo"})
		if result.Reason == "" {
			t.Error("a pod has no reason")
		}
	})
}
