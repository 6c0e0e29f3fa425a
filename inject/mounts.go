package inject

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/strict"
)

// A pod may mount into the proxy's container only where no image has a program,
// a library, the loader's or another configuration: what is mounted over one of
// them runs as the proxy, which in TPROXY is root with NET_ADMIN. Nobody can list
// all of those for every image, but there are folders in which there are none.
// An operator who needs another path has templates.
var mountable = []string{"/etc/certs", "/etc/istio", "/mnt", "/srv", "/tmp", "/var"}

const acceptedPath = "/etc/certs, /etc/istio, /mnt, /srv, /tmp or a path below one of them, or one below /var but not /var/run"

// isMountable reports whether a pod may mount something there.
func isMountable(mountPath string) bool {
	clean := path.Clean(mountPath)
	return !strings.Contains(mountPath, ":") && slices.ContainsFunc(mountable, func(folder string) bool { return podplan.Within(clean, folder) }) &&
		// In images this is a link to /run. Kubelet's tokens are below it.
		clean != "/var" && !podplan.Within(clean, "/var/run")
}

// takenVolumes finds volumes of ours that another container mounts: what is in
// them runs in the proxy's container. The mount by which a container has
// shunt-init for its probes is taken out before.
func takenVolumes(path func() *field.Path, c *corev1.Container) (found strict.Faults) {
	const detail = "the volume is Shunt's own, and the proxy runs what is in it; accepted: any other volume"
	check := func(list string, i int, name string) {
		if podplan.IsVolumeName(name) {
			found.Add(func() *field.Error { return field.Invalid(path().Child(list).Index(i).Child("name"), name, detail) })
		}
	}
	for i := range c.VolumeMounts {
		check("volumeMounts", i, c.VolumeMounts[i].Name)
	}
	for i := range c.VolumeDevices {
		check("volumeDevices", i, c.VolumeDevices[i].Name)
	}
	return found
}

// proxyMount is a path in the proxy's container, and the field of the pod that
// it is from; nil for the configuration's.
type proxyMount struct {
	clean string
	at    *field.Path
}

// proxyMounts are all of the proxy's, of the configuration and of the pod.
func proxyMounts(req request, cfg Config) []proxyMount {
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
	for _, name := range req.templates {
		if c := cfg.Templates[name].Container; c != nil {
			add(c.VolumeMounts, nil)
		}
	}
	add(req.userMounts, req.from.path(UserVolumeMountKey))
	return all
}

// overlapping finds mounts of a pod that are at, above or below another one of
// the proxy's. They would hide what the operator has put there; and through a
// symbolic link in the volume above, the one below could come to lie anywhere.
func overlapping(req request, cfg Config) field.ErrorList {
	if len(req.userMounts) == 0 {
		return nil
	}
	all := proxyMounts(req, cfg)
	// Sorted so, all that are below a path stand right behind it.
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
