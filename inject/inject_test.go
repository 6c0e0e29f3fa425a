package inject_test

import (
	"flag"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/cases"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
)

var update = flag.Bool("update", false, "rewrite the wanted parts of testdata/cases")

const casesDir = "testdata/cases"

// samePod compares what a manifest can say: it cannot tell an empty list from
// an absent one.
var samePod = cmpopts.EquateEmpty()

func loadCases(t *testing.T) []cases.Case {
	t.Helper()
	all, err := cases.Load(casesDir)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestCases(t *testing.T) {
	for _, c := range loadCases(t) {
		t.Run(c.Name, func(t *testing.T) {
			before := c.Pod.DeepCopy()
			got := inject.Inject(c.Pod, c.Namespace, c.Config)
			if diff := cmp.Diff(before, c.Pod); diff != "" {
				t.Errorf("Inject changed its input (-before +after):\n%s", diff)
			}
			if *update {
				if err := c.Rewrite(got); err != nil {
					t.Fatal(err)
				}
				return
			}
			diff, err := c.Check(got)
			if err != nil {
				t.Fatal(err)
			}
			if diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
		})
	}
}

// TestDecisionIsConsistent holds for every case what Decision and Result
// promise of their own fields.
func TestDecisionIsConsistent(t *testing.T) {
	for _, c := range loadCases(t) {
		got := inject.Inject(c.Pod, c.Namespace, c.Config)
		if got.Inject != (got.Pod != nil) || got.Inject != (got.Reason == inject.ReasonInjected) {
			t.Errorf("%s: Inject is %v, reason %s, pod present %v", c.Name, got.Inject, got.Reason, got.Pod != nil)
		}
		if got.Denied() != got.Reason.Denies() {
			t.Errorf("%s: Refused is %v, but the reason is %s", c.Name, got.Denied(), got.Reason)
		}
		if planned := got.Inject || got.Reason == inject.ReasonAlreadyInjected; planned != (got.Plan != nil) {
			t.Errorf("%s: reason %s, plan present %v", c.Name, got.Reason, got.Plan != nil)
		}
	}
}

// TestInjectTwiceEqualsOnce asks for more than that a second injection is
// declined: the plan for the injected pod is the same, and putting it in once
// more changes nothing.
func TestInjectTwiceEqualsOnce(t *testing.T) {
	for _, c := range loadCases(t) {
		t.Run(c.Name, func(t *testing.T) {
			once := inject.Inject(c.Pod, c.Namespace, c.Config)
			if !once.Inject {
				t.Skip("a case that is not injected")
			}
			twice := inject.Inject(once.Pod, c.Namespace, c.Config)
			if twice.Reason != inject.ReasonAlreadyInjected || twice.Pod != nil {
				t.Errorf("the second time: %s; want AlreadyInjected and no pod", cases.Summary(twice))
			}
			edit, _ := podplan.Undo(once.Pod, podplan.VolumeNames(twice.Plan.Volumes))
			twice.Plan.Apply(edit)
			if diff := cmp.Diff(once.Pod, edit.Pod(), samePod); diff != "" {
				t.Errorf("applied once and twice differ (-once +twice):\n%s", diff)
			}
		})
	}
}

// TestEveryKeyAndReasonHasACase keeps the cases complete.
func TestEveryKeyAndReasonHasACase(t *testing.T) {
	all := loadCases(t)
	if len(all) < 35 {
		t.Errorf("there are %d cases, want 35 or more", len(all))
	}
	for _, reason := range inject.Reasons() {
		if !slices.ContainsFunc(all, func(c cases.Case) bool { return strings.HasPrefix(c.Want(), string(reason)+"\n") }) {
			t.Errorf("no case has the reason %s", reason)
		}
	}
	for _, row := range annotation.Table() {
		for _, place := range row.Places {
			for _, wrong := range []bool{false, true} {
				ours := row.Key == podplan.StatusKey || row.Key == podplan.RulesKey
				if !ours && !slices.ContainsFunc(all, hasCase(row.Key, place, wrong)) {
					t.Errorf("no case has %s as a %s whose value is wrong: %v", row.Key, place, wrong)
				}
			}
		}
	}
}

// hasCase finds cases that have the key in the place, and that complain of it
// or do not.
func hasCase(key string, place annotation.Place, wrong bool) func(cases.Case) bool {
	return func(c cases.Case) bool {
		values, field := c.Pod.Annotations, ": metadata.annotations["+key+"]"
		switch place {
		case annotation.PodLabel:
			values, field = c.Pod.Labels, "metadata.labels["+key+"]"
		case annotation.NamespaceAnnotation:
			values, field = c.Namespace.Annotations, ": namespace.metadata.annotations["+key+"]"
		case annotation.NamespaceLabel:
			values, field = c.Namespace.Labels, "metadata.labels["+key+"]"
		}
		_, present := values[key]
		return present && strings.Contains(c.Want(), field) == wrong
	}
}

func TestReasonsHaveSentences(t *testing.T) {
	for _, reason := range inject.Reasons() {
		if reason.Sentence() == string(reason) || strings.HasSuffix(reason.Sentence(), ".") {
			t.Errorf("%s: sentence %q", reason, reason.Sentence())
		}
	}
}

// TestNothingForKubernetesToExpand: in arguments, Kubernetes replaces $(NAME)
// and turns $$ into $, so no other dollar sign may be there.
func TestNothingForKubernetesToExpand(t *testing.T) {
	meant := strings.NewReplacer("$(POD_NAME)", "", "$(POD_NAMESPACE)", "", "$(BOOTSTRAP_OVERRIDE)", "")
	for _, c := range loadCases(t) {
		plan := inject.Inject(c.Pod, c.Namespace, c.Config).Plan
		if plan == nil || c.Config.Sidecar.Type == config.SidecarCustom { // whose words are the user's
			continue
		}
		for _, container := range slices.Concat(plan.Containers.Init, plan.Containers.Regular) {
			for _, arg := range append(container.Command, container.Args...) {
				if strings.Contains(meant.Replace(arg), "$") {
					t.Errorf("%s: %s has the argument %q", c.Name, container.Name, arg)
				}
			}
		}
	}
}

// TestPlanOrder: shunt-init, then the proxy, then what the pod had; as a regular
// sidecar container the proxy before the other containers.
func TestPlanOrder(t *testing.T) {
	for _, c := range loadCases(t) {
		got := inject.Inject(c.Pod, c.Namespace, c.Config)
		if !got.Inject {
			continue
		}
		names, rest := containerNames(got.Pod.Spec.InitContainers), containerNames(got.Pod.Spec.Containers)
		proxy := slices.Index(names, podplan.ProxyContainerName)
		first := slices.Index(names, podplan.InitContainerName)
		if slices.Index(rest, podplan.ProxyContainerName) == 0 { // a regular sidecar container
			proxy, rest = first+1, rest[1:]
		}
		if proxy != first+1 || proxy > 1 {
			t.Errorf("%s: init containers are %v", c.Name, names)
		}
		own, _ := inject.Restore(c.Pod)
		if diff := cmp.Diff(containerNames(own.Pod().Spec.Containers), rest); diff != "" {
			t.Errorf("%s: containers changed (-before +after):\n%s", c.Name, diff)
		}
	}
}

func containerNames(containers []corev1.Container) []string {
	names := make([]string, len(containers))
	for i, c := range containers {
		names[i] = c.Name
	}
	return names
}
