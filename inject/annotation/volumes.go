package annotation

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/strict"
)

// mountable are the folders into which a pod may mount volumes in the proxy's
// container. Images have no programs, libraries or configuration there. A volume
// over one of those would run as the proxy, which in TPROXY is root with NET_ADMIN.
// A list of forbidden paths cannot be complete for every image; a list of allowed
// ones can. An operator who needs another path uses templates.
var mountable = []string{"/etc/certs", "/etc/istio", "/mnt", "/srv", "/tmp", "/var"}

const acceptedPath = "/etc/certs, /etc/istio, /mnt, /srv, /tmp or a path below one of them, or one below /var but not /var/run"

// isMountable reports whether a pod may mount a volume at the path.
func isMountable(mountPath string) bool {
	clean := path.Clean(mountPath)
	below := func(folder string) bool { return podplan.Within(clean, folder) }
	return !strings.Contains(mountPath, ":") && slices.ContainsFunc(mountable, below) &&
		// In images, /var/run is a link to /run. Kubelet's tokens are below it.
		clean != "/var" && !podplan.Within(clean, "/var/run")
}

const (
	acceptedVolumes = `volumes as in a pod, in JSON: [{"name": "certs", "secret": {"secretName": "certs"}}] or {"certs": {"secret": …}}`
	acceptedMounts  = `mounts as in a container, in JSON: [{"name": "certs", "mountPath": "/etc/certs"}] or {"certs": {"mountPath": …}}`
)

// parseUserVolumes reads volumes for the proxy, as strictly as the configuration.
func parseUserVolumes(text string) ([]corev1.Volume, error) {
	volumes, err := parseNamed(text, acceptedVolumes, append(strict.JSONNames[corev1.VolumeSource](), "name"),
		func(volume *corev1.Volume) *string { return &volume.Name })
	if err != nil {
		return nil, err
	}
	var found strict.Faults
	seen := make(map[string]bool, len(volumes))
	for i, volume := range volumes {
		at := func() *field.Path { return (*field.Path)(nil).Index(i) }
		for _, wrong := range validation.IsDNS1123Label(volume.Name) {
			found.Add(func() *field.Error { return field.Invalid(at().Child("name"), volume.Name, "accepted: "+wrong) })
		}
		if podplan.IsVolumeName(volume.Name) {
			found.Add(func() *field.Error {
				return field.Invalid(at().Child("name"), volume.Name, "the name is that of a volume of Shunt's; accepted: any other name")
			})
		}
		if seen[volume.Name] {
			found.Add(func() *field.Error { return field.Duplicate(at().Child("name"), volume.Name) })
		}
		seen[volume.Name] = true
		if volume.VolumeSource == (corev1.VolumeSource{}) {
			found.Add(func() *field.Error {
				return field.Required(at(), "a volume without a source; accepted: one source, such as configMap")
			})
		}
	}
	return volumes, found.Inside()
}

// parseUserMounts reads where the proxy mounts volumes.
func parseUserMounts(text string) ([]corev1.VolumeMount, error) {
	mounts, err := parseNamed(text, acceptedMounts, strict.JSONNames[corev1.VolumeMount](),
		func(mount *corev1.VolumeMount) *string { return &mount.Name })
	if err != nil {
		return nil, err
	}
	var found strict.Faults
	seen := make(map[string]bool, len(mounts))
	for i, mount := range mounts {
		at := func() *field.Path { return (*field.Path)(nil).Index(i) }
		if mount.Name == "" {
			found.Add(func() *field.Error { return field.Required(at().Child("name"), "accepted: the name of a volume") })
		}
		clean := path.Clean(mount.MountPath)
		if !isMountable(mount.MountPath) {
			found.Add(func() *field.Error {
				return field.Invalid(at().Child("mountPath"), mount.MountPath, "accepted: "+acceptedPath)
			})
		}
		if seen[clean] {
			found.Add(func() *field.Error { return field.Duplicate(at().Child("mountPath"), mount.MountPath) })
		}
		seen[clean] = true
	}
	return mounts, found.Inside()
}

// mostNamed is how many volumes or mounts an annotation may have.
const mostNamed = 1000

// parseNamed reads a JSON list of elements with a name, or a JSON object by name.
// Istio takes both. known lists the fields that an element may have.
func parseNamed[T any](text, accepted string, known []string, name func(*T) *string) ([]T, error) {
	var elements []json.RawMessage
	var byName map[string]json.RawMessage
	into := any(&elements)
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		into = &byName
	}
	wrong, err := kjson.UnmarshalStrict([]byte(text), into)
	if err := errors.Join(append(wrong, err)...); err != nil {
		return nil, &interception.ValueError{Value: text, Reason: strict.Shorten(err.Error()), Accepted: accepted}
	}
	keys := slices.Sorted(maps.Keys(byName))
	for _, key := range keys {
		elements = append(elements, byName[key])
	}
	if len(elements) == 0 {
		return nil, &interception.ValueError{Value: text, Reason: "there is none", Accepted: accepted}
	}
	if len(elements) > mostNamed {
		return nil, &interception.ValueError{
			Value: text, Reason: fmt.Sprintf("there are %d, and %d are taken", len(elements), mostNamed), Accepted: accepted,
		}
	}
	read := make([]T, len(elements))
	var found strict.Faults
	for i, raw := range elements {
		at := (*field.Path)(nil).Index(i)
		if byName != nil {
			at = field.NewPath(strict.Shorten(keys[i]))
		}
		wrong, err := kjson.UnmarshalStrict(raw, &read[i])
		if err != nil {
			found.Add(func() *field.Error {
				return field.Invalid(at, string(raw), "a value is of another type; accepted: what Kubernetes has there")
			})
		}
		found.Merge(unknownInside(at, wrong, known))
		if byName == nil {
			continue
		}
		if own := name(&read[i]); *own != "" && *own != keys[i] {
			found.Add(func() *field.Error {
				return field.Invalid(at.Child("name"), *own, "it is there by another name; accepted: none")
			})
		}
		*name(&read[i]) = keys[i]
	}
	return read, found.Inside()
}

// unknownInside returns a fault for each unknown or duplicate field.
func unknownInside(at *field.Path, wrong []error, known []string) (found strict.Faults) {
	for _, err := range wrong {
		found.Add(func() *field.Error { return unknownFault(at, err, known) })
	}
	return found
}

func unknownFault(at *field.Path, err error, known []string) *field.Error {
	var wrong kjson.FieldError
	if !errors.As(err, &wrong) {
		return field.Invalid(at, "", strict.Shorten(err.Error()))
	}
	detail := "unknown field; accepted: what Kubernetes has there"
	if below := wrong.FieldPath(); !strings.ContainsAny(below, ".[") && strings.Contains(err.Error(), "unknown") {
		detail, _, _ = strings.Cut(strict.UnknownField(below, known), "; ")
		detail += "; accepted: what Kubernetes has there"
	} else if strings.Contains(err.Error(), "duplicate") {
		detail = "there twice; accepted: once"
	}
	return field.Forbidden(at.Child(strict.Shorten(wrong.FieldPath())), detail)
}

// UserVolumeNames returns the names of the volumes in the pod's own UserVolumeKey.
func UserVolumeNames(pod *corev1.Pod) []string {
	text, present := pod.Annotations[UserVolumeKey]
	if !present {
		return nil
	}
	volumes, err := parseUserVolumes(text)
	if err != nil {
		return nil
	}
	return podplan.VolumeNames(volumes)
}
