package annotation

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// proxyAnnotations set the proxy's image, resources, volumes and configuration.
// Each key that is neither about traffic nor readiness is here.
var proxyAnnotations = []Row{
	{
		Key: RerouteVirtualInterfacesKey, Places: settingPlaces,
		Sets:     "the same as kubevirtInterfaces; if both are set, the lists are joined",
		Accepted: acceptedNames, Default: "none", Flag: "kube-virt-interfaces",
		read: into(interception.ParseInterfaces, func(r *Request) *[]string { return &r.rerouted }),
	},
	{
		Key: AllowProxyIdentityKey, Places: settingPlaces,
		Sets: "whether containers may run as the proxy's user or group, so that their connections bypass the proxy; " +
			"otherwise such a pod is denied",
		Accepted: acceptedTruth, Default: "false",
		read: into(parseTruth, func(r *Request) **bool { return &r.AllowProxyIdentity }),
	},
	{
		Key: ProxyConfigKey, Places: settingPlaces,
		Sets: "Envoy's worker threads (concurrency, 0 for all cores), how long the end of a pod waits for open requests " +
			"(terminationDrainDuration, or else drainDuration), whether the application waits for a proxy that is a regular " +
			"container (holdApplicationUntilProxyStarts), and which further statistics Envoy keeps (proxyStatsMatcher); other fields " +
			"produce a warning",
		Accepted: acceptedProxyConfig, Default: fromConfiguration,
		read: into(parseProxyConfig, func(r *Request) *ProxyConfig { return &r.ProxyConfig }),
	},
	{
		Key: ProxyImageKey, Places: settingPlaces, Field: "proxyImage",
		Sets:     "the proxy's image, one that allowedProxyImages of the injector's configuration allows",
		Accepted: config.AcceptedImage, Default: fromConfiguration,
		read: into(config.ParseImage, func(r *Request) *string { return &r.ProxyImage }),
	},
	{
		Key: ProxyCPUKey, Places: settingPlaces, Field: "proxyResources.requests.cpu",
		Sets:     "the proxy's CPU request; a lower limit that no annotation sets is raised to it",
		Accepted: acceptedCPU, Default: ofConfiguration + "100m",
		read: into(parseCPU, func(r *Request) **resource.Quantity { return &r.ProxyResources.cpu }),
	},
	{
		Key: ProxyCPULimitKey, Places: settingPlaces, Field: "proxyResources.limits.cpu",
		Sets:     "the proxy's CPU limit; a higher request that no annotation sets is lowered to it",
		Accepted: acceptedCPULimit, Default: ofConfiguration + "2",
		read: into(parseCPU, func(r *Request) **resource.Quantity { return &r.ProxyResources.cpuLimit }),
	},
	{
		Key: ProxyMemoryKey, Places: settingPlaces, Field: "proxyResources.requests.memory",
		Sets:     "the proxy's memory request; a lower limit that no annotation sets is raised to it",
		Accepted: acceptedMemory, Default: ofConfiguration + "128Mi",
		read: into(parseMemory, func(r *Request) **resource.Quantity { return &r.ProxyResources.memory }),
	},
	{
		Key: ProxyMemoryLimitKey, Places: settingPlaces, Field: "proxyResources.limits.memory",
		Sets:     "the proxy's memory limit; a higher request that no annotation sets is lowered to it",
		Accepted: acceptedMemoryLimit, Default: ofConfiguration + "1Gi",
		read: into(parseMemory, func(r *Request) **resource.Quantity { return &r.ProxyResources.memoryLimit }),
	},
	{
		Key: TemplatesKey, Places: settingPlaces,
		Sets:     "templates of the injector's configuration, merged into the sidecar in this order",
		Accepted: acceptedTemplates, Default: "sidecar",
		read: into(parseTemplates, func(r *Request) *[]string { return &r.Templates }),
	},
	{
		Key: UserVolumeKey, Places: settingPlaces,
		Sets:     "volumes to add to the pod, for the proxy to mount",
		Accepted: acceptedVolumes, Default: "none",
		read: into(parseUserVolumes, func(r *Request) *[]corev1.Volume { return &r.UserVolumes }),
	},
	{
		Key: UserVolumeMountKey, Places: settingPlaces,
		Sets:     "where the proxy mounts volumes of the pod, from userVolume or others: " + acceptedPath + "; no mount inside another",
		Accepted: acceptedMounts, Default: "none",
		read: into(parseUserMounts, func(r *Request) *[]corev1.VolumeMount { return &r.UserMounts }),
	},
	{
		Key: BootstrapOverrideKey, Places: settingPlaces, Envoy: true,
		Sets:     "ConfigMap whose bootstrap Envoy merges over Shunt's",
		Accepted: acceptedOverride, Default: "none",
		read: into(parseBootstrapOverride, func(r *Request) *string { return &r.BootstrapOverride }),
	},
}

// readinessAnnotations set the proxy's health port and readiness probe.
var readinessAnnotations = []Row{
	{
		Key: HealthPortKey, Places: settingPlaces,
		Sets: "the proxy's health port, which is never intercepted; 0 keeps 15021 and omits the proxy's readiness probe; " +
			"for a port below 1024 the pod gets the sysctl " + podplan.UnprivilegedSysctl,
		Accepted: acceptedHealth, Default: "15021",
		read: into(parseHealthPort, func(r *Request) *Health { return &r.Health }),
	},
	{
		Key: ReadinessInitialDelayKey, Places: settingPlaces,
		Sets:     "delay of the proxy's first readiness probe",
		Accepted: acceptedSeconds, Default: "0",
		read: into(wholeFrom(0, acceptedSeconds), func(r *Request) *int32 { return &r.Readiness.InitialDelay }),
	},
	{
		Key: ReadinessPeriodKey, Places: settingPlaces,
		Sets:     "time between readiness probes of the proxy",
		Accepted: acceptedPeriod, Default: "15",
		read: into(wholeFrom(1, acceptedPeriod), func(r *Request) *int32 { return &r.Readiness.Period }),
	},
	{
		Key: ReadinessFailuresKey, Places: settingPlaces,
		Sets:     "failed readiness probes of the proxy after which the pod is not ready",
		Accepted: acceptedFailures, Default: "4",
		read: into(wholeFrom(1, acceptedFailures), func(r *Request) *int32 { return &r.Readiness.Failures }),
	},
}
