package inject

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// undoneWarnings tells of what the pod's status records just as the plan has
// it, and the pod has not: somebody took it out or changed it after injection.
// A status that says something else is from other settings, and no news.
//
//	the pod                                              the warning
//	has no status, or one that the plan does not have    none
//	lacks a container, a volume, a sysctl, …             missing
//	has a container before ours                          behind another
//	has one of ours with another image, arguments, …     the fields that differ
//	has another value of a sysctl                        none: it follows from what
//	                                                     others added to the pod
func (p Plan) undoneWarnings(pod *corev1.Pod) []string {
	status, ok := ReadStatus(pod)
	if !ok || !equality.Semantic.DeepEqual(status, p.Status) {
		return nil
	}
	found := undoneContainers("init container", p.InitContainers, pod.Spec.InitContainers)
	found = append(found, undoneContainers("container", p.Containers, pod.Spec.Containers)...)
	for _, probe := range p.Probes {
		if !probe.in(pod) {
			found = append(found, fmt.Sprintf("the %s of container %s is another", probe.Kind, probe.Container))
		}
	}
	found = append(found, missing("volume", names(p.Volumes, volumeName), names(pod.Spec.Volumes, volumeName))...)
	if pod.Spec.SecurityContext == nil {
		found = append(found, missing("sysctl", names(p.Sysctls, sysctlName), nil)...)
	} else {
		found = append(found, missing("sysctl", names(p.Sysctls, sysctlName), names(pod.Spec.SecurityContext.Sysctls, sysctlName))...)
	}
	found = append(found, missing("pull secret", names(p.ImagePullSecrets, secretName), names(pod.Spec.ImagePullSecrets, secretName))...)
	found = append(found, missing("annotation", slices.Sorted(maps.Keys(p.Annotations)), slices.Collect(maps.Keys(pod.Annotations)))...)
	if len(found) == 0 {
		return nil
	}
	return []string{fmt.Sprintf(undoneText, paths[PodAnnotation].Key(StatusKey), strings.Join(found, "; "))}
}

const undoneText = "%s: what it records was changed after injection, by another admission or by hand, " +
	"or put in with other settings, and is put back: %s"

// undoneContainers are those of ours that are not the first ones of the pod's,
// in their order, or do other work.
func undoneContainers(kind string, planned, actual []corev1.Container) []string {
	all := names(actual, containerName)
	found := missing(kind, names(planned, containerName), all)
	behind := 0 // planned ones that are there have these places
	for i := range planned {
		at := slices.Index(all, planned[i].Name)
		if at < 0 {
			continue
		}
		if at > behind {
			found = append(found, fmt.Sprintf("%s %s is behind %s", kind, planned[i].Name, all[at-1]))
		}
		behind = at + 1
		if fields := otherWork(planned[i], actual[at]); len(fields) > 0 {
			found = append(found, fmt.Sprintf("%s %s differs in %s", kind, planned[i].Name, strings.Join(fields, ", ")))
		}
	}
	return found
}

func missing(kind string, planned, actual []string) []string {
	var found []string
	for _, name := range planned {
		if !slices.Contains(actual, name) {
			found = append(found, kind+" "+name+" is missing")
		}
	}
	return found
}

// otherWork are the fields for which two containers do not do the same work.
func otherWork(planned, actual corev1.Container) []string {
	var fields []string
	want, have := fieldsOf(work(planned)), fieldsOf(work(actual))
	for _, field := range slices.Sorted(maps.Keys(want)) {
		if !reflect.DeepEqual(want[field], have[field]) {
			fields = append(fields, field)
		}
		delete(have, field)
	}
	fields = append(fields, slices.Sorted(maps.Keys(have))...)
	if !sameResources(planned.Resources, actual.Resources) {
		fields = append(fields, "resources")
	}
	if !sameProbe(planned.StartupProbe, actual.StartupProbe) {
		fields = append(fields, "startupProbe")
	}
	if !sameProbe(planned.ReadinessProbe, actual.ReadinessProbe) {
		fields = append(fields, "readinessProbe")
	}
	if !containsEach(actual.VolumeMounts, planned.VolumeMounts) {
		fields = append(fields, "volumeMounts")
	}
	return fields
}

// fieldsOf are a container's, by the names that a manifest has.
func fieldsOf(c corev1.Container) map[string]any {
	fields := map[string]any{}
	if err := json.Unmarshal(encode(&c), &fields); err != nil {
		panic("a container's JSON is an object: " + err.Error())
	}
	return fields
}
