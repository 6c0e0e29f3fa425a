package annotation

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// proxyAnnotations are the rows of what the proxy is and has.
var proxyAnnotations = []Row{
	{
		Key: RerouteVirtualInterfacesKey, Places: settingPlaces,
		Sets:     "the same as kubevirtInterfaces; a pod that has both has the interfaces of both",
		Accepted: acceptedNames, Default: "none", Flag: "kube-virt-interfaces",
		read: into(interception.ParseInterfaces, func(r *Request) *[]string { return &r.rerouted }),
	},
	{
		Key: AllowProxyIdentityKey, Places: settingPlaces,
		Sets: "whether containers may run as the proxy's user or group, which takes their connections past the proxy; " +
			"without it such a pod is refused",
		Accepted: acceptedTruth, Default: "false",
		read: into(parseTruth, func(r *Request) **bool { return &r.AllowProxyIdentity }),
	},
	{
		Key: ProxyConfigKey, Places: settingPlaces,
		Sets: "Envoy's worker threads (concurrency, 0 for all cores), how long the end of a pod waits for requests under way through " +
			"Envoy (terminationDrainDuration, or else drainDuration) and whether a pod waits for a proxy that is a regular container " +
			"(holdApplicationUntilProxyStarts); other fields are warned about",
		Accepted: acceptedProxyConfig, Default: "what the injector's configuration says",
		read: into(parseProxyConfig, func(r *Request) *ProxyConfig { return &r.ProxyConfig }),
	},
	{
		Key: ProxyImageKey, Places: settingPlaces, Field: "proxyImage",
		Sets:     "the proxy's image, of those that allowedProxyImages of the configuration allows",
		Accepted: config.AcceptedImage, Default: "what the injector's configuration says",
		read: into(config.ParseImage, func(r *Request) *string { return &r.ProxyImage }),
	},
	{
		Key: ProxyCPUKey, Places: settingPlaces, Field: "proxyResources.requests.cpu",
		Sets:     "the proxy's CPU request; a limit that nobody says and that is below it is raised to it",
		Accepted: acceptedCPU, Default: ofConfiguration + "100m",
		read: into(parseCPU, func(r *Request) **resource.Quantity { return &r.ProxyResources.cpu }),
	},
	{
		Key: ProxyCPULimitKey, Places: settingPlaces, Field: "proxyResources.limits.cpu",
		Sets:     "the proxy's CPU limit; a request that nobody says and that is above it is lowered to it",
		Accepted: acceptedCPULimit, Default: ofConfiguration + "2",
		read: into(parseCPU, func(r *Request) **resource.Quantity { return &r.ProxyResources.cpuLimit }),
	},
	{
		Key: ProxyMemoryKey, Places: settingPlaces, Field: "proxyResources.requests.memory",
		Sets:     "the proxy's memory request; a limit that nobody says and that is below it is raised to it",
		Accepted: acceptedMemory, Default: ofConfiguration + "128Mi",
		read: into(parseMemory, func(r *Request) **resource.Quantity { return &r.ProxyResources.memory }),
	},
	{
		Key: ProxyMemoryLimitKey, Places: settingPlaces, Field: "proxyResources.limits.memory",
		Sets:     "the proxy's memory limit; a request that nobody says and that is above it is lowered to it",
		Accepted: acceptedMemoryLimit, Default: ofConfiguration + "1Gi",
		read: into(parseMemory, func(r *Request) **resource.Quantity { return &r.ProxyResources.memoryLimit }),
	},
	{
		Key: TemplatesKey, Places: settingPlaces,
		Sets:     "templates of the configuration that are merged over the sidecar, one after the other",
		Accepted: acceptedTemplates, Default: "sidecar",
		read: into(parseTemplates, func(r *Request) *[]string { return &r.Templates }),
	},
	{
		Key: UserVolumeKey, Places: settingPlaces,
		Sets:     "volumes of the pod for the proxy to mount, in addition to those that the pod has",
		Accepted: acceptedVolumes, Default: "none",
		read: into(parseUserVolumes, func(r *Request) *[]corev1.Volume { return &r.UserVolumes }),
	},
	{
		Key: UserVolumeMountKey, Places: settingPlaces,
		Sets:     "where the proxy has volumes of the pod, those of userVolume or others: " + acceptedPath + ", and none in another",
		Accepted: acceptedMounts, Default: "none",
		read: into(parseUserMounts, func(r *Request) *[]corev1.VolumeMount { return &r.UserMounts }),
	},
	{
		Key: BootstrapOverrideKey, Places: settingPlaces, Envoy: true,
		Sets:     "a file with more of Envoy's bootstrap, over which Shunt's is merged",
		Accepted: acceptedOverride, Default: "none",
		read: into(parseBootstrapOverride, func(r *Request) *string { return &r.BootstrapOverride }),
	},
}

// readinessAnnotations are the rows of how kubelet sees the proxy.
var readinessAnnotations = []Row{
	{
		Key: HealthPortKey, Places: settingPlaces,
		Sets: "the port that the proxy answers for its health on, which is never intercepted; " +
			"with 0 it stays 15021, and the proxy's readiness is not the pod's; for a port below 1024 the pod gets the sysctl " +
			podplan.UnprivilegedSysctl,
		Accepted: acceptedHealth, Default: "15021",
		read: into(parseHealthPort, func(r *Request) *Health { return &r.Health }),
	},
	{
		Key: ReadinessInitialDelayKey, Places: settingPlaces,
		Sets:     "how long after its start the proxy is first asked whether it is ready",
		Accepted: acceptedSeconds, Default: "0",
		read: into(wholeFrom(0, acceptedSeconds), func(r *Request) *int32 { return &r.Readiness.InitialDelay }),
	},
	{
		Key: ReadinessPeriodKey, Places: settingPlaces,
		Sets:     "how often the proxy is asked whether it is ready",
		Accepted: acceptedPeriod, Default: "15",
		read: into(wholeFrom(1, acceptedPeriod), func(r *Request) *int32 { return &r.Readiness.Period }),
	},
	{
		Key: ReadinessFailuresKey, Places: settingPlaces,
		Sets:     "how often the proxy may fail to be ready before the pod is not",
		Accepted: acceptedFailures, Default: "4",
		read: into(wholeFrom(1, acceptedFailures), func(r *Request) *int32 { return &r.Readiness.Failures }),
	},
}
