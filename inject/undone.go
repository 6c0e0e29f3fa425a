package inject

import (
	"fmt"
	"maps"
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
//	has a volume of ours with another source             which one
//	has another value of a sysctl                        none: it follows from what
//	                                                     others added to the pod
func (p Plan) undoneWarnings(pod *corev1.Pod) []string {
	status, ok := ReadStatus(pod)
	if !ok || !equality.Semantic.DeepEqual(status, p.Status) {
		return nil
	}
	found := undoneContainers("init container", p.InitContainers, pod.Spec.InitContainers)
	found = append(found, undoneContainers("container", p.Containers, pod.Spec.Containers)...)
	containers := byName(pod)
	for _, probe := range p.Probes {
		if !probe.in(containers) {
			found = append(found, fmt.Sprintf("the %s of container %s is another", probe.Kind, probe.Container))
		}
	}
	there := names(pod.Spec.Volumes, volumeName)
	for _, name := range p.otherVolumes(pod) {
		if slices.Contains(there, name) {
			found = append(found, fmt.Sprintf("volume %s is another", name))
		} else {
			found = append(found, fmt.Sprintf("volume %s is missing", name))
		}
	}
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
	return []string{fmt.Sprintf(undoneText, paths[PodAnnotation].Key(StatusKey), firstOf(found))}
}

const undoneText = "%s: what it records was changed after injection, by another admission or by hand, " +
	"or put in with other settings, and is put back: %s"

// firstOf joins the first ones, and counts the rest.
func firstOf(found []string) string {
	if more := len(found) - mostTold; more > 0 {
		found = append(found[:mostTold:mostTold], andMore(more))
	}
	return cut(strings.Join(found, "; "), maxDetail)
}

// undoneContainers are those of ours that are not the first ones of the pod's,
// in their order, or not as planned.
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
		if fields := otherFields(planned[i], actual[at]); len(fields) > 0 {
			found = append(found, fmt.Sprintf("%s %s differs in %s", kind, planned[i].Name, strings.Join(fields, ", ")))
		}
	}
	return found
}

func missing(kind string, planned, actual []string) []string {
	have := setOf(actual)
	var found []string
	for _, name := range planned {
		if !have[name] {
			found = append(found, kind+" "+name+" is missing")
		}
	}
	return found
}
