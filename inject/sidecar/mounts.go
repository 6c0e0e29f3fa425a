package sidecar

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/strict"
)

// proxyMount is a path in the proxy's container, and the pod's field that sets it;
// nil for the configuration's.
type proxyMount struct {
	clean string
	at    *field.Path
}

// proxyMounts returns all of the proxy's mounts, of the configuration and the pod.
func proxyMounts(req annotation.Request, cfg config.Config) []proxyMount {
	var all []proxyMount
	add := func(mounts []corev1.VolumeMount, at *field.Path) {
		for i, m := range mounts {
			place := proxyMount{clean: path.Clean(m.MountPath)}
			if at != nil {
				place.at = at.Index(i).Child("mountPath")
			}
			all = append(all, place)
		}
	}
	if cfg.Sidecar.Container != nil {
		add(cfg.Sidecar.Container.VolumeMounts, nil)
	}
	for _, name := range req.Templates {
		if c := cfg.Templates[name].Container; c != nil {
			add(c.VolumeMounts, nil)
		}
	}
	add(req.UserMounts, req.Source.Path(annotation.UserVolumeMountKey))
	return all
}

// overlapping finds mounts of a pod at, above or below another one of the
// proxy's. They would hide what the operator mounts there; and a symbolic link in
// the upper volume could move the lower mount anywhere.
func overlapping(req annotation.Request, cfg config.Config) field.ErrorList {
	if len(req.UserMounts) == 0 {
		return nil
	}
	all := proxyMounts(req, cfg)
	// In this order, everything below a path follows it directly.
	slices.SortStableFunc(all, func(a, b proxyMount) int { return strings.Compare(a.clean+"/", b.clean+"/") })
	above := proxyMount{clean: "no path"}
	var errs field.ErrorList
	for _, below := range all {
		if !podplan.Within(below.clean, above.clean) {
			above = below
			continue
		}
		pods, other := below, above
		if pods.at == nil {
			pods, other = above, below
		}
		if pods.at == nil {
			continue // both are the operator's
		}
		errs = append(errs, field.Invalid(pods.at, strict.Shorten(pods.clean), fmt.Sprintf(
			"the proxy has another mount at %s; accepted: a path that is not at, above or below it", strict.Shorten(other.clean))))
	}
	return errs
}
