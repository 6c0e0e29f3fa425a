package inject

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// Keys of annotations for the proxy itself.
const (
	// ProxyCPUKey and those beside it are the proxy's requests and limits.
	ProxyCPUKey         = sidecarPrefix + "proxyCPU"
	ProxyCPULimitKey    = sidecarPrefix + "proxyCPULimit"
	ProxyMemoryKey      = sidecarPrefix + "proxyMemory"
	ProxyMemoryLimitKey = sidecarPrefix + "proxyMemoryLimit"

	// ProxyImageKey names another image for the proxy.
	ProxyImageKey = sidecarPrefix + "proxyImage"

	// ProxyConfigKey has some of the settings in the form of Istio's mesh
	// configuration.
	ProxyConfigKey = proxyPrefix + "config"

	// UserVolumeKey and UserVolumeMountKey are volumes for the proxy and where it
	// has them.
	UserVolumeKey      = sidecarPrefix + "userVolume"
	UserVolumeMountKey = sidecarPrefix + "userVolumeMount"
	// TemplatesKey names templates of the configuration.
	TemplatesKey = "inject.istio.io/templates"
	// BootstrapOverrideKey names a ConfigMap with more of Envoy's bootstrap.
	BootstrapOverrideKey = sidecarPrefix + "bootstrapOverride"

	// HealthPortKey is the port that the proxy answers for its health on.
	HealthPortKey = "status." + sidecarPrefix + "port"
	// ReadinessInitialDelayKey and those beside it are how often kubelet asks.
	ReadinessInitialDelayKey = readinessPrefix + "initialDelaySeconds"
	ReadinessPeriodKey       = readinessPrefix + "periodSeconds"
	ReadinessFailuresKey     = readinessPrefix + "failureThreshold"

	// RerouteVirtualInterfacesKey is Istio's newer word for
	// KubevirtInterfacesKey.
	RerouteVirtualInterfacesKey = "istio.io/reroute-virtual-interfaces"

	DropInvalidKey        = ShuntPrefix + "dropInvalid"
	ConcurrencyKey        = ShuntPrefix + "concurrency"
	AllowProxyIdentityKey = ShuntPrefix + "allowProxyIdentity"
)

const (
	readinessPrefix = "readiness.status." + sidecarPrefix

	acceptedTruth = "true, false"
)

// proxyAnnotations are the rows of what the proxy is and has.
var proxyAnnotations = []Annotation{
	{
		Key: RerouteVirtualInterfacesKey, Places: settingPlaces,
		Sets:     "the same as kubevirtInterfaces; a pod that has both has the interfaces of both",
		Accepted: acceptedNames, Default: "none", Flag: "kube-virt-interfaces",
		read: into(interception.ParseInterfaces, func(r *request) *[]string { return &r.rerouted }),
	},
	{
		Key: DropInvalidKey, Places: settingPlaces, Field: "dropInvalid",
		Sets:     "whether inbound TCP packets that belong to no connection are dropped",
		Accepted: acceptedTruth, Default: ofConfiguration + "false", Flag: "drop-invalid",
		read: into(parseTruth, func(r *request) **bool { return &r.dropInvalid }),
	},
	{
		Key: AllowProxyIdentityKey, Places: settingPlaces,
		Sets: "whether containers may run as the proxy's user or group, which takes their connections past the proxy; " +
			"without it such a pod is refused",
		Accepted: acceptedTruth, Default: "false",
		read: into(parseTruth, func(r *request) **bool { return &r.allowIdentity }),
	},
	{
		Key: ConcurrencyKey, Places: settingPlaces, Field: "concurrency", Envoy: true,
		Sets:     "Envoy's worker threads",
		Accepted: acceptedConcurrency, Default: ofConfiguration + "2",
		read: into(parseConcurrency, func(r *request) **int32 { return &r.concurrency }),
	},
	{
		Key: ProxyConfigKey, Places: settingPlaces,
		Sets: "concurrency, terminationDrainDuration (or else drainDuration) and holdApplicationUntilProxyStarts, where no " +
			"key of the same place says the first two; other fields are warned about",
		Accepted: acceptedProxyConfig, Default: "what the injector's configuration says",
		read: into(parseProxyConfig, func(r *request) *proxyConfig { return &r.config }),
	},
	{
		Key: ProxyImageKey, Places: settingPlaces, Field: "proxyImage",
		Sets:     "the proxy's image, of those that allowedProxyImages of the configuration allows",
		Accepted: acceptedImage, Default: "what the injector's configuration says",
		read: into(parseImage, func(r *request) *string { return &r.image }),
	},
	{
		Key: ProxyCPUKey, Places: settingPlaces, Field: "proxyResources.requests.cpu",
		Sets:     "the proxy's CPU request; a limit that nobody says and that is below it is raised to it",
		Accepted: acceptedCPU, Default: ofConfiguration + "100m",
		read: into(parseCPU, func(r *request) **resource.Quantity { return &r.resources.cpu }),
	},
	{
		Key: ProxyCPULimitKey, Places: settingPlaces, Field: "proxyResources.limits.cpu",
		Sets:     "the proxy's CPU limit; a request that nobody says and that is above it is lowered to it",
		Accepted: acceptedCPULimit, Default: ofConfiguration + "2",
		read: into(parseCPU, func(r *request) **resource.Quantity { return &r.resources.cpuLimit }),
	},
	{
		Key: ProxyMemoryKey, Places: settingPlaces, Field: "proxyResources.requests.memory",
		Sets:     "the proxy's memory request; a limit that nobody says and that is below it is raised to it",
		Accepted: acceptedMemory, Default: ofConfiguration + "128Mi",
		read: into(parseMemory, func(r *request) **resource.Quantity { return &r.resources.memory }),
	},
	{
		Key: ProxyMemoryLimitKey, Places: settingPlaces, Field: "proxyResources.limits.memory",
		Sets:     "the proxy's memory limit; a request that nobody says and that is above it is lowered to it",
		Accepted: acceptedMemoryLimit, Default: ofConfiguration + "1Gi",
		read: into(parseMemory, func(r *request) **resource.Quantity { return &r.resources.memoryLimit }),
	},
	{
		Key: TemplatesKey, Places: settingPlaces,
		Sets:     "templates of the configuration that are merged over the sidecar, one after the other",
		Accepted: acceptedTemplates, Default: "sidecar",
		read: into(parseTemplates, func(r *request) *[]string { return &r.templates }),
	},
	{
		Key: UserVolumeKey, Places: settingPlaces,
		Sets:     "volumes of the pod for the proxy to mount, in addition to those that the pod has",
		Accepted: acceptedVolumes, Default: "none",
		read: into(parseUserVolumes, func(r *request) *[]corev1.Volume { return &r.userVolumes }),
	},
	{
		Key: UserVolumeMountKey, Places: settingPlaces,
		Sets:     "where the proxy has volumes of the pod, those of userVolume or others: " + acceptedPath + ", and none in another",
		Accepted: acceptedMounts, Default: "none",
		read: into(parseUserMounts, func(r *request) *[]corev1.VolumeMount { return &r.userMounts }),
	},
	{
		Key: BootstrapOverrideKey, Places: settingPlaces, Envoy: true,
		Sets:     "a file with more of Envoy's bootstrap, over which Shunt's is merged",
		Accepted: acceptedOverride, Default: "none",
		read: into(parseOverride, func(r *request) *string { return &r.bootstrapOverride }),
	},
}

// readinessAnnotations are the rows of how kubelet sees the proxy.
var readinessAnnotations = []Annotation{
	{
		Key: HealthPortKey, Places: settingPlaces,
		Sets: "the port that the proxy answers for its health on, which is never intercepted; " +
			"with 0 it stays 15021, and the proxy's readiness is not the pod's; for a port below 1024 the pod gets the sysctl " +
			podplan.UnprivilegedSysctl,
		Accepted: acceptedHealth, Default: "15021",
		read: into(parseHealthPort, func(r *request) *healthPort { return &r.healthPort }),
	},
	{
		Key: ReadinessInitialDelayKey, Places: settingPlaces,
		Sets:     "how long after its start the proxy is first asked whether it is ready",
		Accepted: acceptedSeconds, Default: "0",
		read: into(wholeFrom(0, acceptedSeconds), func(r *request) *int32 { return &r.readiness.initialDelay }),
	},
	{
		Key: ReadinessPeriodKey, Places: settingPlaces,
		Sets:     "how often the proxy is asked whether it is ready",
		Accepted: acceptedPeriod, Default: "15",
		read: into(wholeFrom(1, acceptedPeriod), func(r *request) *int32 { return &r.readiness.period }),
	},
	{
		Key: ReadinessFailuresKey, Places: settingPlaces,
		Sets:     "how often the proxy may fail to be ready before the pod is not",
		Accepted: acceptedFailures, Default: "4",
		read: into(wholeFrom(1, acceptedFailures), func(r *request) *int32 { return &r.readiness.failures }),
	},
}

// parseConcurrency reads a number of threads.
func parseConcurrency(text string) (*int32, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || n > maxConcurrency {
		return nil, &interception.ValueError{Value: text, Accepted: acceptedConcurrency}
	}
	return new(int32(n)), nil
}

func onePort(port uint16) interception.PortRange {
	return interception.PortRange{First: port, Last: port}
}

// combine puts together what several annotations say of one thing, when all of
// them are read.
func (r *request) combine() {
	r.combineConfig()
	virtual := sets.New(r.spec.VirtualInterfaces...)
	for _, name := range r.rerouted {
		if !virtual.Has(name) {
			r.spec.VirtualInterfaces = append(r.spec.VirtualInterfaces, name)
		}
	}
	r.spec.InboundExcludePorts = interception.NewPortRanges(append(r.leftAlone(), r.excludedInbound...)...)
}

// leftAlone are the inbound ports that are not intercepted though nobody asks
// for it.
//
//	includeInboundPorts | the proxy's health and metrics | 22, 15020
//	*                   | left alone: kubelet's probes and Prometheus would run through the proxy | left alone, as by Istio's rules
//	a list              | left alone                     | intercepted where they are in it
func (r *request) leftAlone() []interception.PortRange {
	ports := []interception.PortRange{onePort(r.health()), onePort(interception.MetricsPort)}
	if r.spec.InboundPorts.All {
		ports = append(ports, onePort(interception.SSHPort), onePort(interception.StatusPort))
	}
	return ports
}
