package inject

import (
	"fmt"
	"path"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/strict"
)

// tcpProbes plans to replace the tcpSocket probes that the proxy would answer,
// unless the pod keeps them.
func tcpProbes(pod *corev1.Pod, req annotation.Request) podplan.Probes {
	if req.Mode == interception.ModeNone || !ptr.Deref(req.RewriteProbes, true) {
		return nil
	}
	return podplan.NewProbes(pod, req.Spec)
}

// mostProbes is the largest number of tcpSocket probes of a pod: each is recorded
// in an annotation.
const mostProbes = 1000

// takenPaths finds mounts at the path where a container needs shunt-init for its
// probes.
func takenPaths(pod *corev1.Pod, req annotation.Request) (found strict.Faults) {
	probes := tcpProbes(pod, req)
	if len(probes) > mostProbes {
		found.Add(func() *field.Error {
			return field.Invalid(podplan.SpecPath, fmt.Sprintf("%d tcpSocket probes", len(probes)), fmt.Sprintf(
				"each has to be replaced and recorded; accepted: %d, or with %s: \"false\"", mostProbes, annotation.RewriteProbesKey))
		})
		return found
	}
	probed := map[string]bool{}
	for _, p := range probes {
		probed[p.Container] = true
	}
	podplan.EachContainer(pod, func(c podplan.Placed) bool {
		if !probed[c.Name] {
			return true
		}
		for j, m := range c.VolumeMounts {
			if podplan.Within(path.Clean(m.MountPath), envoy.SharedDirectory) {
				found.Add(func() *field.Error {
					at := c.Path().Child("volumeMounts").Index(j).Child("mountPath")
					return field.Invalid(at, m.MountPath, "shunt-init, which the container's tcpSocket probes need, is there; "+
						"accepted: a path that is not "+envoy.SharedDirectory+" or below it")
				})
			}
		}
		return true
	})
	return found
}
