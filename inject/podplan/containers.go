package podplan

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
)

// Names of the containers that the injector adds. No other container may have
// them.
const (
	InitContainerName  = "shunt-init"
	ProxyContainerName = "shunt-proxy"
)

// IsContainerName reports whether a name is one of the injector's containers.
func IsContainerName(name string) bool {
	return name == InitContainerName || name == ProxyContainerName
}

// Containers is the unit of shunt-init and the proxy. Both go before the pod's
// own containers, in this order: the rules are in place, and the proxy is ready,
// before anything else in the pod runs.
type Containers struct {
	Init    []corev1.Container // shunt-init, and the proxy as a native sidecar
	Regular []corev1.Container // the proxy as a regular sidecar container
}

// NewContainers plans the proxy as a native sidecar, an init container that keeps
// running, or as a regular sidecar container.
func NewContainers(init, proxy corev1.Container, native bool) Containers {
	if native {
		proxy.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		return Containers{Init: []corev1.Container{init, proxy}}
	}
	proxy.RestartPolicy = nil
	return Containers{Init: []corev1.Container{init}, Regular: []corev1.Container{proxy}}
}

// Proxy returns the proxy's container, wherever it is.
func (c *Containers) Proxy() corev1.Container {
	if len(c.Regular) > 0 {
		return c.Regular[0]
	}
	return c.Init[len(c.Init)-1]
}

const (
	initContainersPath = "/spec/initContainers"
	containersPath     = "/spec/containers"
)

func containerName(c *corev1.Container) string { return c.Name }

func (c *Containers) apply(edit *Edit) {
	prepend(edit, initContainersPath, &edit.pod.Spec.InitContainers, c.Init)
	prepend(edit, containersPath, &edit.pod.Spec.Containers, c.Regular)
}

func (c *Containers) record(status *Status) {
	status.InitContainers, status.Containers = namesOf(c.Init, containerName), namesOf(c.Regular, containerName)
}

func (*Containers) undo(edit *Edit, status Status) {
	recorded := sets.New(status.InitContainers...)
	drop(edit, initContainersPath, &edit.pod.Spec.InitContainers, func(c *corev1.Container) bool {
		return IsContainerName(c.Name) && recorded.Has(c.Name)
	})
	recorded = sets.New(status.Containers...)
	ours := func(c *corev1.Container) bool { return IsContainerName(c.Name) && recorded.Has(c.Name) }
	// A proxy without any other container is not ours: every pod has its own.
	if slices.ContainsFunc(edit.pod.Spec.Containers, func(c corev1.Container) bool { return !ours(&c) }) {
		drop(edit, containersPath, &edit.pod.Spec.Containers, ours)
	}
}

// compare reports whether the planned containers are the first, in their order.
func (c *Containers) compare(pod *corev1.Pod) (same bool, changed []string) {
	for _, list := range []struct {
		kind            string
		planned, actual []corev1.Container
	}{{"init container", c.Init, pod.Spec.InitContainers}, {"container", c.Regular, pod.Spec.Containers}} {
		all := namesOf(list.actual, containerName)
		changed = append(changed, missing(list.kind, namesOf(list.planned, containerName), all)...)
		behind := 0 // the place after the planned containers found so far
		for i := range list.planned {
			at := slices.Index(all, list.planned[i].Name)
			if at < 0 {
				continue
			}
			if at > behind {
				changed = append(changed, fmt.Sprintf("%s %s is behind %s", list.kind, list.planned[i].Name, all[at-1]))
			}
			behind = at + 1
			if fields := OtherFields(list.planned[i], list.actual[at]); len(fields) > 0 {
				changed = append(changed, fmt.Sprintf("%s %s differs in %s", list.kind, list.planned[i].Name, strings.Join(fields, ", ")))
			}
		}
	}
	return len(changed) == 0, changed
}
