package inject_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/cases"
	"github.com/shunt-dev/shunt/inject/config"
)

// TestEveryChangeIsPutBack sets each field of our containers and volumes, down
// to the last one that the types have, to something else: the pod is not taken
// for one that is as it would be now, its owner is told, and it is put back.
func TestEveryChangeIsPutBack(t *testing.T) {
	injected := inject.Inject(cases.Small(), enabled, config.Default()).Pod
	ours := func(pod *corev1.Pod) []reflect.Value {
		return []reflect.Value{
			reflect.ValueOf(&pod.Spec.InitContainers[0]).Elem(), reflect.ValueOf(&pod.Spec.InitContainers[1]).Elem(),
			reflect.ValueOf(&pod.Spec.Volumes[0]).Elem(),
		}
	}
	tried := 0
	for i, of := range ours(injected) {
		for _, change := range changes(of.Type().Name(), of) {
			tried++
			changed := injected.DeepCopy()
			change.do(ours(changed)[i])
			got := inject.Inject(changed, enabled, config.Default())
			switch {
			case cmp.Equal(injected, changed):
				t.Errorf("%s changes nothing", change.path)
			case strings.HasSuffix(change.path, "r.name"), strings.HasSuffix(change.path, "e.name"): // which makes it none of ours
				if got.Reason == inject.ReasonAlreadyInjected {
					t.Errorf("%s: %s", change.path, got.Reason)
				}
			case !got.Inject:
				t.Errorf("%s: %s %v", change.path, got.Reason, got.Errors)
			case !strings.Contains(strings.Join(got.Warnings, "\n"), "is put back"):
				t.Errorf("%s: put back without a word: %q", change.path, got.Warnings)
			default:
				if diff := cmp.Diff(injected, got.Pod); diff != "" {
					t.Errorf("%s (-before +after):\n%s", change.path, diff)
				}
			}
		}
	}
	if tried < 300 {
		t.Errorf("only %d changes were tried", tried)
	}
}

// change is one of a value, which may be a copy of the one that it was made for.
type change struct {
	path string
	do   func(reflect.Value)
}

// changes are those of all that a value holds or could hold.
func changes(path string, of reflect.Value) []change {
	leaf := func(do func(reflect.Value)) []change { return []change{{path, do}} }
	switch of.Type() {
	case reflect.TypeFor[metav1.Time]():
		return leaf(func(v reflect.Value) { v.Set(reflect.ValueOf(metav1.Unix(7531, 0))) })
	case reflect.TypeFor[resource.Quantity]():
		return leaf(func(v reflect.Value) { v.Set(reflect.ValueOf(resource.MustParse("7531"))) })
	}
	switch of.Kind() {
	case reflect.Struct:
		var all []change
		for i := range of.NumField() {
			name, _, _ := strings.Cut(of.Type().Field(i).Tag.Get("json"), ",")
			all = append(all, below(changes(path+"."+name, of.Field(i)), func(v reflect.Value) reflect.Value { return v.Field(i) })...)
		}
		return all
	case reflect.Pointer:
		return pointerChanges(path, of)
	case reflect.Slice:
		return sliceChanges(path, of)
	case reflect.Map:
		return leaf(addToMap)
	case reflect.String:
		return leaf(func(v reflect.Value) { v.SetString(v.String() + "x") })
	case reflect.Bool:
		return leaf(func(v reflect.Value) { v.SetBool(!v.Bool()) })
	case reflect.Int32, reflect.Int64:
		return leaf(func(v reflect.Value) { v.SetInt(v.Int() + 7) })
	case reflect.Uint8:
		return leaf(func(v reflect.Value) { v.SetUint(v.Uint() + 7) })
	default:
		panic(path + ": " + of.Kind().String())
	}
}

// below are changes of a part, as changes of the whole.
func below(inner []change, to func(reflect.Value) reflect.Value) []change {
	all := make([]change, len(inner))
	for i, c := range inner {
		all[i] = change{c.path, func(v reflect.Value) { c.do(to(v)) }}
	}
	return all
}

func pointerChanges(path string, of reflect.Value) []change {
	if !of.IsNil() {
		gone := change{path + " (gone)", func(v reflect.Value) { v.SetZero() }}
		return append(below(changes(path, of.Elem()), func(v reflect.Value) reflect.Value { return v.Elem() }), gone)
	}
	bare := func(v reflect.Value) { v.Set(reflect.New(v.Type().Elem())) }
	all := []change{{path + " (empty)", bare}}
	for _, inner := range changes(path, reflect.New(of.Type().Elem()).Elem()) {
		all = append(all, change{inner.path, func(v reflect.Value) { bare(v); inner.do(v.Elem()) }})
	}
	return all
}

func sliceChanges(path string, of reflect.Value) []change {
	var all []change
	for i := range of.Len() {
		inner := changes(fmt.Sprintf("%s[%d]", path, i), of.Index(i))
		all = append(all, below(inner, func(v reflect.Value) reflect.Value { return v.Index(i) })...)
	}
	if of.Len() > 0 {
		all = append(all, change{path + " (one less)", func(v reflect.Value) { v.Set(v.Slice(0, v.Len()-1)) }})
	}
	for _, inner := range changes(path+"[+]", reflect.New(of.Type().Elem()).Elem()) {
		all = append(all, change{inner.path, func(v reflect.Value) {
			more := reflect.New(v.Type().Elem()).Elem()
			inner.do(more)
			v.Set(reflect.Append(v, more))
		}})
	}
	return all
}

func addToMap(v reflect.Value) {
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	value := reflect.New(v.Type().Elem()).Elem()
	if value.Type() == reflect.TypeFor[resource.Quantity]() {
		value.Set(reflect.ValueOf(resource.MustParse("1")))
	}
	v.SetMapIndex(reflect.ValueOf("example.com/more").Convert(v.Type().Key()), value)
}

// TestWhatOthersSetStays holds the other half: each thing on the list.
func TestWhatOthersSetStays(t *testing.T) {
	each := func(f func(*corev1.Container)) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			for i := range pod.Spec.InitContainers {
				f(&pod.Spec.InitContainers[i])
			}
		}
	}
	mounted := func(path string) func(*corev1.Pod) {
		return each(func(c *corev1.Container) {
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "token", MountPath: path, ReadOnly: true})
		})
	}
	for name, set := range map[string]func(*corev1.Pod){
		"AlwaysPullImages":        each(func(c *corev1.Container) { c.ImagePullPolicy = corev1.PullAlways }),
		"termination message":     each(func(c *corev1.Container) { c.TerminationMessagePath = "/dev/termination-log" }),
		"procMount":               each(func(c *corev1.Container) { c.SecurityContext.ProcMount = new(corev1.DefaultProcMount) }),
		"eks, by IAM role":        mounted("/var/run/secrets/eks.amazonaws.com/serviceaccount"),
		"eks, by pod identity":    mounted("/var/run/secrets/pods.eks.amazonaws.com/serviceaccount"),
		"azure-workload-identity": mounted("/var/run/secrets/azure/tokens"),
		"LimitRanger":             each(func(c *corev1.Container) { c.Resources.Limits["ephemeral-storage"] = resource.MustParse("1Gi") }),
		"variables": each(func(c *corev1.Container) {
			c.Env = append([]corev1.EnvVar{{Name: "AWS_REGION", Value: "x"}}, c.Env...)
			c.Env = append(c.Env, corev1.EnvVar{Name: "AZURE_CLIENT_ID", Value: "y"})
		}),
		"resizePolicy": each(func(c *corev1.Container) {
			c.ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: "cpu", RestartPolicy: corev1.NotRequired}}
		}),
	} {
		pod := inject.Inject(cases.Small(), enabled, config.Default()).Pod
		set(pod)
		if got := inject.Inject(pod, enabled, config.Default()); got.Reason != inject.ReasonAlreadyInjected || len(got.Warnings) > 0 {
			t.Errorf("%s: %s, warned %q", name, got.Reason, got.Warnings)
		}
	}
}

// TestWhatOnlyLooksAlikeIsPutBack: what is near to the list.
func TestWhatOnlyLooksAlikeIsPutBack(t *testing.T) {
	const token = "/var/run/secrets/eks.amazonaws.com/serviceaccount"
	for name, set := range map[string]func(*corev1.Container){
		"writable token": func(c *corev1.Container) {
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "a", MountPath: token})
		},
		"part of a token": func(c *corev1.Container) {
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "a", MountPath: token, ReadOnly: true, SubPath: "b"})
		},
		"below a token": func(c *corev1.Container) {
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "a", MountPath: token + "/b", ReadOnly: true})
		},
		"beside a token": func(c *corev1.Container) {
			elsewhere := corev1.VolumeMount{Name: "a", MountPath: token + "/../../../../../usr/local/bin", ReadOnly: true}
			c.VolumeMounts = append(c.VolumeMounts, elsewhere)
		},
		"shunt-init's volume as a token": func(c *corev1.Container) {
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "shunt-shared", MountPath: token, ReadOnly: true})
		},
		"LD_PRELOAD": func(c *corev1.Container) { c.Env = append(c.Env, corev1.EnvVar{Name: "LD_PRELOAD", Value: "/a.so"}) },
		"HTTP_PROXY": func(c *corev1.Container) { c.Env = append(c.Env, corev1.EnvVar{Name: "HTTP_PROXY", Value: "a:1"}) },
		"a variable from elsewhere": func(c *corev1.Container) {
			c.Env = append(c.Env, corev1.EnvVar{Name: "AWS_REGION", ValueFrom: &corev1.EnvVarSource{}})
		},
		"image by digest": func(c *corev1.Container) {
			c.Image += "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
		},
		"never pulled":  func(c *corev1.Container) { c.ImagePullPolicy = corev1.PullNever },
		"smaller":       func(c *corev1.Container) { c.Resources.Limits["memory"] = resource.MustParse("20Mi") },
		"with a device": func(c *corev1.Container) { c.Resources.Limits["example.com/gpu"] = resource.MustParse("1") },
		"with a claim":  func(c *corev1.Container) { c.Resources.Claims = []corev1.ResourceClaim{{Name: "a"}} },
		"restarts": func(c *corev1.Container) {
			c.ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: "cpu", RestartPolicy: "RestartContainer"}}
		},
		"unmasked /proc": func(c *corev1.Container) { c.SecurityContext.ProcMount = new(corev1.UnmaskedProcMount) },
	} {
		for i := range 2 {
			want := inject.Inject(cases.Small(), enabled, config.Default()).Pod
			pod := want.DeepCopy()
			set(&pod.Spec.InitContainers[i])
			got := inject.Inject(pod, enabled, config.Default())
			if diff := cmp.Diff(want, got.Pod); diff != "" || len(got.Warnings) != 1 {
				t.Errorf("%s in container %d: %s, warned %q (-want +got):\n%s", name, i, got.Reason, got.Warnings, diff)
			}
		}
	}
}
