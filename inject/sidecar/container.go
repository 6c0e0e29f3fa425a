package sidecar

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/strict"
)

// Maker makes the proxy's container for many pods of one configuration. It does
// once what is slow and depends on no pod.
type Maker struct {
	// merged is the custom sidecar for each mode, without what depends on the pod.
	// It is shared: do not change it.
	merged map[interception.Mode]func() corev1.Container
}

// NewMaker returns a Maker for a configuration that has passed Validate.
func NewMaker(cfg config.Config) *Maker {
	m := &Maker{merged: map[interception.Mode]func() corev1.Container{}}
	for _, mode := range modes {
		m.merged[mode] = sync.OnceValue(func() corev1.Container { return mustMergeCustom(mode, cfg) })
	}
	return m
}

// Container returns the pod's proxy container: the configuration's, overridden by
// the pod's annotations. cfg is the configuration merged with them.
func (m *Maker) Container(req annotation.Request, cfg config.Config) corev1.Container {
	var c corev1.Container
	if cfg.Sidecar.Type == config.SidecarCustom {
		c = mustTemplated(req, m.merged[req.Mode](), cfg)
		// First, so that the variables of the template can refer to them.
		c.Env = slices.Concat(customEnv(req.Mode, cfg), c.Env)
	} else {
		c = mustTemplated(req, envoyContainer(req.Mode, cfg), cfg)
	}
	c = withHealth(req, c)
	if req.BootstrapOverride != "" && cfg.Sidecar.Type != config.SidecarCustom {
		c = withOverride(c, req.BootstrapOverride)
	}
	if len(req.UserMounts) > 0 {
		c.VolumeMounts = slices.Concat(c.VolumeMounts, req.UserMounts)
	}
	c.Image = cmp.Or(req.ProxyImage, c.Image)
	c.Resources = req.ProxyResources.Override(c.Resources)
	return c
}

// Check finds what a pod asks of its proxy and the configuration does not allow.
func (m *Maker) Check(pod *corev1.Pod, req annotation.Request, cfg config.Config) (found strict.Faults) {
	found.AddAll(checkImageAllowed(req, cfg))
	found.Merge(checkUserVolumes(pod, req, cfg))
	found.AddAll(overlapping(req, cfg))
	if unknown := checkTemplateNames(req, cfg); len(unknown.Told) > 0 {
		found.Merge(unknown)
		return found
	}
	if req.ProxyResources == (annotation.Quantities{}) && len(req.Templates) == 0 {
		return found
	}
	configured := cfg.ProxyResources
	if cfg.Sidecar.Type == config.SidecarCustom {
		configured = m.merged[req.Mode]().Resources
	}
	configured = mustTemplated(req, corev1.Container{Name: podplan.ProxyContainerName, Resources: configured}, cfg).Resources
	if wrong := config.CheckResources(field.NewPath("resources"), configured); len(wrong) > 0 {
		found.Add(func() *field.Error {
			return req.Source.Invalid(annotation.TemplatesKey, "together they are contradictory: "+wrong[0].Error())
		})
		return found
	}
	found.AddAll(req.ProxyResources.Check(req.Source))
	return found
}

// checkImageAllowed finds that the configuration does not allow the pod's image.
func checkImageAllowed(req annotation.Request, cfg config.Config) field.ErrorList {
	if req.ProxyImage == "" {
		return nil
	}
	if cfg.AllowsImage(req.ProxyImage) {
		return nil
	}
	detail := "allowedProxyImages of the injector's configuration is empty; accepted: no such annotation"
	if len(cfg.AllowedProxyImages) > 0 {
		detail = fmt.Sprintf("%s is not allowed by the injector's configuration; accepted: what is one of these or below it: %s",
			req.ProxyImage, strings.Join(cfg.AllowedProxyImages, ", "))
	}
	return field.ErrorList{req.Source.Invalid(annotation.ProxyImageKey, detail)}
}

// modes are all modes that a pod can ask for.
var modes = []interception.Mode{interception.ModeRedirect, interception.ModeTProxy, interception.ModeNone}

// baseContainer returns what every sidecar has. podplan.NewContainers makes it a
// native sidecar or a regular sidecar container.
func baseContainer(mode interception.Mode, cfg config.Config) corev1.Container {
	return corev1.Container{
		Name:                     podplan.ProxyContainerName,
		ImagePullPolicy:          cfg.PullPolicy,
		Resources:                *cfg.ProxyResources.DeepCopy(),
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext:          proxyIdentity(mode, cfg),
	}
}

// noToken returns a mount of an empty folder at podplan.TokenDirectory. Our
// containers do not need a token; and if the plug-in changed them, the API server
// would call the webhook again.
func noToken() corev1.VolumeMount {
	return corev1.VolumeMount{Name: podplan.SharedVolume, MountPath: podplan.TokenDirectory, SubPath: "no-token", ReadOnly: true}
}

// proxyIdentity returns the proxy's user and group. In TPROXY its sockets bind
// other hosts' addresses (IP_TRANSPARENT) and set marks (SO_MARK), which needs
// NET_ADMIN; a process in a container has an added capability only as uid 0. The
// rules then match the proxy's gid.
func proxyIdentity(mode interception.Mode, cfg config.Config) *corev1.SecurityContext {
	if mode == interception.ModeTProxy {
		return securityContext(0, cfg.ProxyGID, NetAdmin)
	}
	return securityContext(cfg.ProxyUID, cfg.ProxyGID)
}
