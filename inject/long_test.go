package inject_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/cases"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// words are so many words of a list, each with its number in it.
func words(count int, format string) string {
	all := make([]string, count)
	for i := range all {
		all[i] = fmt.Sprintf(format, i)
	}
	return strings.Join(all, ",")
}

// TestLongLists has lists of a pod that no single argument can hold, and lists
// with which nothing would start: the pod is then refused, and told why.
func TestLongLists(t *testing.T) {
	odd := func(count int) string {
		ports := make([]string, count)
		for i := range ports {
			ports[i] = fmt.Sprint(2*i + 1)
		}
		return strings.Join(ports, ",")
	}
	const included, excluded = annotation.IncludeOutboundIPRangesKey, annotation.ExcludeOutboundIPRangesKey
	for name, c := range map[string]struct {
		annotations map[string]string
		want        string // of the refusal; empty where the pod is injected
	}{
		"ranges": {map[string]string{excluded: words(10_000, "2001:db8:%x::/48")}, ""},
		"a range too many": {map[string]string{excluded: words(10_001, "2001:db8:%x::/48")},
			excluded + "]: Invalid value: |10001 ranges; accepted: 10000 in "},
		"two lists": {map[string]string{included: words(6_000, "fd00:%x::/32"), excluded: words(4_001, "2001:%x::/32")},
			included + "]: Invalid value: |10001 ranges"},
		"ports":             {map[string]string{annotation.ExcludeOutboundPortsKey: odd(32_768)}, ""},
		"few ports of HTTP": {map[string]string{annotation.HTTPPortsKey: odd(10_000)}, ""},
		"ports of HTTP": {map[string]string{annotation.HTTPPortsKey: odd(20_000)},
			annotation.HTTPPortsKey + "]: Invalid value: |it makes an argument of 2|accepted: what makes one of less than 131072"},
		"levels of components": {map[string]string{annotation.ComponentLogLevelKey: words(9_000, "component%d:debug")},
			annotation.ComponentLogLevelKey + "]: Invalid value: |it makes an argument of "},
	} {
		t.Run(name, func(t *testing.T) {
			pod := cases.Small()
			pod.Annotations = c.annotations
			result := inject.Inject(pod, enabled, config.Default())
			if result.Inject != (c.want == "") {
				t.Fatalf("%s: %v", result.Reason, result.Errors)
			}
			for part := range strings.SplitSeq(c.want, "|") {
				if c.want != "" && !strings.Contains(result.Errors.ToAggregate().Error(), part) {
					t.Errorf("%v, want %s", result.Errors, part)
				}
			}
			if result.Pod != nil {
				startable(t, result.Pod)
			}
		})
	}
}

// TestLongListOfTheConfiguration: a list for every pod has a bound of its own, and
// counts among the ranges of a pod that does not set another.
func TestLongListOfTheConfiguration(t *testing.T) {
	ranges := make([]string, 3_856) // of 16 bytes and a comma
	for i := range ranges {
		ranges[i] = fmt.Sprintf("1%02d.1%02d.1%02d.0/25", i/10_000, i/100%100, i%100)
	}
	parse := func(count int) (config.Config, error) {
		return inject.ParseConfigFile([]byte(configType+"excludeOutboundIPRanges: file:cdn.txt\n"), func(string) ([]byte, error) {
			return []byte(strings.Join(ranges[:count], "\n")), nil
		})
	}
	const refusal = "3856 ranges, merged, are 65551 bytes in every pod; accepted: 65536"
	if _, err := parse(3_856); err == nil || !strings.Contains(err.Error(), refusal) {
		t.Errorf("one range too many: %v", err)
	}
	cfg, err := parse(3_855)
	if err != nil {
		t.Fatal(err)
	}
	const included, excluded = annotation.IncludeOutboundIPRangesKey, annotation.ExcludeOutboundIPRangesKey
	for name, c := range map[string]struct {
		annotations map[string]string
		excluded    int
		want        string
	}{
		"alone":         {nil, 3_855, ""},
		"overridden":    {map[string]string{excluded: "10.0.0.0/8"}, 1, ""},
		"taken away":    {map[string]string{excluded: ""}, 0, ""},
		"with included": {map[string]string{included: words(6_145, "fd00:%x::/32")}, 3_855, ""},
		"with too many included": {map[string]string{included: words(6_146, "fd00:%x::/32")}, 0,
			included + "]: Invalid value: |10001 ranges; accepted: 10000 in " + included +
				" and the configuration's excludeOutboundIPRanges together"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := cases.Small()
			pod.Annotations = c.annotations
			result := inject.Inject(pod, enabled, cfg)
			if result.Inject != (c.want == "") {
				t.Fatalf("%s: %v", result.Reason, result.Errors)
			}
			for part := range strings.SplitSeq(c.want, "|") {
				if c.want != "" && !strings.Contains(result.Errors.ToAggregate().Error(), part) {
					t.Errorf("%v, want %s", result.Errors, part)
				}
			}
			if result.Pod == nil {
				return
			}
			startable(t, result.Pod)
			spec, _, err := interception.ParseArgs(podplan.Container(result.Pod, podplan.InitContainerName).Args)
			if err != nil || len(spec.OutboundExcludeCIDRs) != c.excluded {
				t.Errorf("%d ranges are excluded, want %d; error %v", len(spec.OutboundExcludeCIDRs), c.excluded, err)
			}
		})
	}
}

// startable holds that Linux takes every argument of what was injected.
func startable(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	const most = 2 << 20 // of all arguments, where the stack may have 8 MiB (execve(2))
	for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		if c.Name != podplan.InitContainerName && c.Name != podplan.ProxyContainerName {
			continue
		}
		size := 0
		for _, arg := range append(c.Command, c.Args...) {
			if size += len(arg); len(arg) >= interception.MaxArgument {
				t.Errorf("%s has an argument of %d bytes: %.60s…", c.Name, len(arg), arg)
			}
		}
		if size >= most {
			t.Errorf("%s has %d bytes of arguments", c.Name, size)
		}
	}
}

// TestWorstPodsStart holds that what of the pods that make most work is injected
// can be started.
func TestWorstPodsStart(t *testing.T) {
	for _, worst := range cases.WorstPods() {
		for _, size := range []int{250_000, 3 << 20} {
			if result := inject.Inject(worst.Pod(size), enabled, config.Default()); result.Pod != nil {
				t.Run(fmt.Sprint(worst.Name, size), func(t *testing.T) { startable(t, result.Pod) })
			}
		}
	}
}

// TestLongListsForTheNode checks that the agent of a node is given no list that it refuses.
func TestLongListsForTheNode(t *testing.T) {
	cfg := config.Default()
	cfg.InterceptFrom = config.InterceptFromNode
	for key, c := range map[string]struct{ list, want string }{
		annotation.ExcludeOutboundIPRangesKey: {words(5_000, "2001:db8:%x::/48"), ""},
		annotation.ExcludeInterfacesKey:       {words(257, "net%d"), "--istio-exclude-interfaces: 257 elements; accepted by the node's"},
	} {
		pod := cases.Small()
		pod.Annotations = map[string]string{key: c.list}
		result := inject.Inject(pod, enabled, cfg)
		if result.Inject != (c.want == "") || c.want != "" && !strings.Contains(result.Errors.ToAggregate().Error(), c.want) {
			t.Errorf("%s: %s, %v", key, result.Reason, result.Errors)
		}
		if result.Inject {
			if _, err := interception.ParseNodeRules(result.Pod.Annotations[podplan.RulesKey]); err != nil {
				t.Error(err)
			}
		}
	}
}
