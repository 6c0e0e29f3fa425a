package inject

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// OwnContainer is a container of the pod's own that has the proxy's name. It is
// no container beside the proxy: what it says is said of the proxy.
type OwnContainer struct {
	// List and Index say where it stood: in containers or initContainers.
	List      string           `json:"list"`
	Index     int              `json:"index"`
	Container corev1.Container `json:"container"`
}

// autoImage is Istio's word for the image that the injector has.
const autoImage = "auto"

// takeOwn takes such a container out of a pod that is without us. A pod that
// has none is returned itself, and the one that is given is never changed. The
// only container of a pod is not taken for what it says of the proxy.
func takeOwn(pod *corev1.Pod) (*corev1.Pod, *OwnContainer) {
	var own *OwnContainer
	eachContainer(pod, func(list string, i int, c *corev1.Container) bool {
		if c.Name == ProxyContainerName && (list != "containers" || len(pod.Spec.Containers) > 1) {
			own = &OwnContainer{List: list, Index: i, Container: *c.DeepCopy()}
		}
		return own == nil
	})
	if own == nil {
		return pod, nil
	}
	pod = pod.DeepCopy()
	list := own.in(pod)
	*list = slices.Delete(*list, own.Index, own.Index+1)
	if len(*list) == 0 {
		*list = nil
	}
	return pod, own
}

// in is the list of the pod that it stands in.
func (o *OwnContainer) in(pod *corev1.Pod) *[]corev1.Container {
	if o.List == "initContainers" {
		return &pod.Spec.InitContainers
	}
	return &pod.Spec.Containers
}

// putBack gives a pod that is without us its own container back. A status may
// have been copied from another pod: one that the pod has by now is not doubled,
// and nothing of another name comes in.
func (o *OwnContainer) putBack(pod *corev1.Pod) {
	if o == nil || o.Container.Name != ProxyContainerName || byName(pod)[ProxyContainerName] != nil {
		return
	}
	list := o.in(pod)
	*list = slices.Insert(*list, min(max(o.Index, 0), len(*list)), o.Container)
}

// path leads to it in the pod.
func (o *OwnContainer) path() *field.Path { return specPath.Child(o.List).Index(o.Index) }

// words are what its author wrote, less what an API server fills in where
// nothing is said: it would take the place of what the proxy has.
func (o *OwnContainer) words() corev1.Container {
	c := *o.Container.DeepCopy()
	if c.Image == "" || c.Image == autoImage {
		c.Image, c.ImagePullPolicy = "", "" // which follows from the image's tag
	}
	if c.TerminationMessagePath == corev1.TerminationMessagePathDefault {
		c.TerminationMessagePath = ""
	}
	if c.TerminationMessagePolicy == corev1.TerminationMessageReadFile {
		c.TerminationMessagePolicy = ""
	}
	return c
}

// over is the proxy with the pod's own container put over it. What is one
// thing of several kinds is taken whole: a probe, a hook, a variable's value.
func (o *OwnContainer) over(proxy corev1.Container) (corev1.Container, error) {
	words, base := o.words(), *proxy.DeepCopy()
	if words.StartupProbe != nil {
		base.StartupProbe = nil
	}
	if words.ReadinessProbe != nil {
		base.ReadinessProbe = nil
	}
	if words.LivenessProbe != nil {
		base.LivenessProbe = nil
	}
	if base.Lifecycle != nil && words.Lifecycle != nil {
		if words.Lifecycle.PreStop != nil {
			base.Lifecycle.PreStop = nil
		}
		if words.Lifecycle.PostStart != nil {
			base.Lifecycle.PostStart = nil
		}
	}
	base.Env = slices.DeleteFunc(base.Env, func(v corev1.EnvVar) bool {
		return slices.ContainsFunc(words.Env, func(own corev1.EnvVar) bool { return own.Name == v.Name })
	})
	return overlay(base, words)
}

// mustOver is over for a container that check has passed.
func (o *OwnContainer) mustOver(proxy corev1.Container) corev1.Container {
	merged, err := o.over(proxy)
	if err != nil {
		panic("the pod's own container: " + err.Error())
	}
	return merged
}

// check finds what it says and must leave to Shunt, as of a custom sidecar's
// container.
func (o *OwnContainer) check(proxy corev1.Container, mode interception.Mode, cfg Config) field.ErrorList {
	path, words := o.path(), o.words()
	if errs := o.checkSize(); len(errs) > 0 {
		return errs
	}
	errs := o.checkImage(proxy, cfg)
	if words.Image == "" {
		words.Image = proxy.Image
	}
	errs = append(errs, checkTemplate(path, words)...)
	errs = append(errs, checkMountable(path, words)...)
	errs = append(errs, takenVolumes(o.path, &words).told...)
	if cfg.Sidecar.Type != SidecarCustom {
		errs = append(errs, checkPrograms(path, words)...)
		for name, said := range map[string][]string{"command": words.Command, "args": words.Args} {
			if len(said) > 0 {
				errs = append(errs, field.Forbidden(path.Child(name), "Envoy's command line is the injector's; accepted: none"))
			}
		}
	}
	merged, err := o.over(proxy)
	if err != nil {
		return append(errs, field.InternalError(path, err))
	}
	security := path.Child("securityContext")
	errs = append(errs, checkResources(path.Child("resources"), merged.Resources)...)
	errs = append(errs, checkIdentity(security, merged.SecurityContext, mode, cfg)...)
	errs = append(errs, checkCapabilities(security.Child("capabilities"), merged.SecurityContext.Capabilities, mode)...)
	slices.SortStableFunc(errs, func(a, b *field.Error) int { return strings.Compare(a.Field, b.Field) })
	return errs
}

// checkImage holds that it has the proxy's image, or one that a pod may have.
func (o *OwnContainer) checkImage(proxy corev1.Container, cfg Config) field.ErrorList {
	image := o.words().Image
	if image == "" || image == proxy.Image || cfg.allowsImage(image) {
		return nil
	}
	accepted := fmt.Sprintf("accepted: none, %s, %s", autoImage, proxy.Image)
	if len(cfg.AllowedProxyImages) > 0 {
		accepted += ", or what is one of these or below it: " + strings.Join(cfg.AllowedProxyImages, ", ")
	}
	return field.ErrorList{field.Invalid(o.path().Child("image"), image,
		"not an image that the injector's configuration allows; "+accepted)}
}

// longestOwn is how long the JSON of a pod's own container for the proxy may be:
// it is recorded in an annotation.
const longestOwn = 64 << 10

// longestList is how many elements a list of a pod's own container for the
// proxy may have. A merge compares each with all that there are.
const longestList = 250

// checkSize holds that it is no more work than it is worth: the lists that are
// merged by a key, and what the status records of it.
func (o *OwnContainer) checkSize() field.ErrorList {
	path, c := o.path(), &o.Container
	var errs field.ErrorList
	for _, list := range []struct {
		name   string
		length int
	}{
		{"env", len(c.Env)}, {"ports", len(c.Ports)}, {"volumeDevices", len(c.VolumeDevices)}, {"volumeMounts", len(c.VolumeMounts)},
	} {
		if list.length > longestList {
			errs = append(errs, field.TooMany(path.Child(list.name), list.length, longestList))
		}
	}
	if len(errs) == 0 && len(encode(c)) > longestOwn {
		errs = append(errs, field.TooLong(path, "", longestOwn))
	}
	return errs
}

// checkOwn finds what is wrong with a pod's own container for the proxy. What
// the proxy is for that does not depend on what else is wrong with the pod.
func (in *Injector) checkOwn(req request, cfg Config) (found faults) {
	if req.own == nil {
		return faults{}
	}
	proxy := anyProxy(req.mode, cfg)
	proxy.Image = cfg.ProxyImage
	if cfg.Sidecar.Type == SidecarCustom {
		proxy = in.merged(req.mode)
	}
	proxy = req.mustTemplated(proxy, cfg)
	replace(&proxy.Image, req.image)
	proxy.Resources = req.resources.over(proxy.Resources)
	found.addAll(req.own.check(proxy, req.mode, cfg))
	_, overlapping := req.overlapping(cfg)
	found.addAll(overlapping)
	return found
}
