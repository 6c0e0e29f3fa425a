package inject

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// modes are all that a pod can ask for.
var modes = []interception.Mode{interception.ModeRedirect, interception.ModeTProxy, interception.ModeNone}

// anyProxy is what a sidecar has whatever the proxy. A native one is an init
// container that goes on running: pods of a Job end in spite of it, and it
// outlives the containers whose connections it carries. Plan.place says which
// it is.
func anyProxy(mode interception.Mode, cfg Config) corev1.Container {
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
func proxyIdentity(mode interception.Mode, cfg Config) *corev1.SecurityContext {
	if mode == interception.ModeTProxy {
		return confined(0, cfg.ProxyGID, netAdmin)
	}
	return confined(cfg.ProxyUID, cfg.ProxyGID)
}

// healthProbe asks the proxy whether it is live. Kubelet reaches the port
// without interception.
func healthProbe(periodSeconds, failureThreshold int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Path: envoy.HealthPath, Port: intstr.FromInt32(int32(interception.HealthPort)), Scheme: corev1.URISchemeHTTP,
		}},
		PeriodSeconds:    periodSeconds,
		TimeoutSeconds:   3,
		SuccessThreshold: 1,
		FailureThreshold: failureThreshold,
	}
}

// startupProbe is passed before the pod's own containers start: the proxy may
// take ten minutes for it.
func startupProbe() *corev1.Probe { return healthProbe(1, 600) }
