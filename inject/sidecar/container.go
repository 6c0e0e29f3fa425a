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

// Maker makes the proxy's container by one configuration, for many pods: what
// takes long to make and depends on no pod is made once.
type Maker struct {
	// merged is the custom sidecar for each mode, less what depends on the pod.
	// It is shared, and must not be changed.
	merged map[interception.Mode]func() corev1.Container
}

// NewMaker returns a maker for a configuration that Validate has passed.
func NewMaker(cfg config.Config) *Maker {
	m := &Maker{merged: map[interception.Mode]func() corev1.Container{}}
	for _, mode := range modes {
		m.merged[mode] = sync.OnceValue(func() corev1.Container { return mustMergeCustom(mode, cfg) })
	}
	return m
}

// Container returns the proxy's container as a pod gets it: that of the
// configuration, overridden by what the pod asks for. The configuration is the
// one that holds for the pod.
func (m *Maker) Container(req annotation.Request, cfg config.Config) corev1.Container {
	c := envoyContainer(req.Mode, cfg)
	if cfg.Sidecar.Type == config.SidecarCustom {
		c = m.merged[req.Mode]()
	}
	c = mustTemplated(req, c, cfg)
	if cfg.Sidecar.Type == config.SidecarCustom {
		// First, so that the variables of the template can refer to them.
		c.Env = slices.Concat(customEnv(req.Mode, cfg), c.Env)
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

// Check finds what a pod asks of its proxy and the configuration does not let
// it have.
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

// checkImageAllowed holds the image that a pod asks for to the configuration.
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

// modes are all that a pod can ask for.
var modes = []interception.Mode{interception.ModeRedirect, interception.ModeTProxy, interception.ModeNone}

// baseContainer is what a sidecar has whatever the proxy. A native one is an init
// container that goes on running: pods of a Job end in spite of it, and it
// outlives the containers whose connections it carries. Plan.place says which
// it is.
func baseContainer(mode interception.Mode, cfg config.Config) corev1.Container {
	return corev1.Container{
		Name:                     podplan.ProxyContainerName,
		ImagePullPolicy:          cfg.PullPolicy,
		Resources:                *cfg.ProxyResources.DeepCopy(),
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext:          proxyIdentity(mode, cfg),
	}
}

// noToken mounts an empty folder there. Neither of our containers asks the API
// server anything; and when the plug-in changes what we have put in, the API
// server asks the webhook about the pod once more.
func noToken() corev1.VolumeMount {
	return corev1.VolumeMount{Name: podplan.SharedVolume, MountPath: podplan.TokenDirectory, SubPath: "no-token", ReadOnly: true}
}

// proxyIdentity is the user that the proxy runs as. In TPROXY its sockets take
// other hosts' addresses (IP_TRANSPARENT) and marks (SO_MARK), which needs
// NET_ADMIN; a process in a container has an added capability only as uid 0.
// The rules then know the proxy by its gid.
func proxyIdentity(mode interception.Mode, cfg config.Config) *corev1.SecurityContext {
	if mode == interception.ModeTProxy {
		return securityContext(0, cfg.ProxyGID, NetAdmin)
	}
	return securityContext(cfg.ProxyUID, cfg.ProxyGID)
}
