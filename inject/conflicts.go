package inject

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/sidecar"
	"github.com/shunt-dev/shunt/inject/strict"
)

// takenNames finds containers and volumes with one of our names, or with a name
// of the sidecar's configured volumes, in a pod that is not injected.
func takenNames(pod *corev1.Pod, custom []corev1.Volume) (found strict.Faults) {
	const (
		detail       = "the name is Shunt's own and the injector did not put it there; accepted: any other name"
		customDetail = "the name is that of a volume of the injector's sidecar; accepted: any other name"
	)
	for _, c := range podplan.AllContainers(pod) {
		if podplan.IsContainerName(c.Name) {
			found.Add(func() *field.Error { return field.Invalid(c.Path().Child("name"), c.Name, detail) })
			continue
		}
		found.Merge(takenVolumes(c.Path, c.Container))
	}
	path := func(i int) *field.Path { return podplan.SpecPath.Child("volumes").Index(i).Child("name") }
	for i, volume := range pod.Spec.Volumes {
		if podplan.IsVolumeName(volume.Name) {
			found.Add(func() *field.Error { return field.Invalid(path(i), volume.Name, detail) })
		}
		if slices.ContainsFunc(custom, func(v corev1.Volume) bool { return v.Name == volume.Name }) {
			found.Add(func() *field.Error { return field.Invalid(path(i), volume.Name, customDetail) })
		}
	}
	return found
}

// takenIdentity finds containers that run as the proxy's user or group: the
// rules would take their connections for the proxy's, and these would bypass it.
// A container without its own ids inherits the pod's, and the fault then names
// the pod's field. fsGroup and supplementalGroups may be the proxy's: netfilter's
// owner match compares the primary group only.
//
// AllowProxyIdentityKey turns the check off.
func takenIdentity(pod *corev1.Pod, req annotation.Request, cfg config.Config) (found strict.Faults) {
	if ptr.Deref(req.AllowProxyIdentity, false) {
		return strict.Faults{}
	}
	inherited := map[string]bool{}
	check := func(c podplan.Placed, name string, own, ofPod *int64, proxys int64) {
		id := own
		if own == nil {
			id = ofPod
		}
		if id == nil || *id != proxys || (own == nil && inherited[name]) {
			return
		}
		inherited[name] = inherited[name] || own == nil
		found.Add(func() *field.Error {
			path := c.Path()
			if own == nil {
				path = podplan.SpecPath
			}
			return field.Invalid(path.Child("securityContext", name), *id, fmt.Sprintf(
				"%d is the proxy's own, and the connections of container %q would bypass it; accepted: any other id, or with %s: \"true\"",
				proxys, strict.Shorten(c.Name), annotation.AllowProxyIdentityKey))
		})
	}
	podContext := pod.Spec.SecurityContext
	if podContext == nil {
		podContext = &corev1.PodSecurityContext{}
	}
	for _, c := range podplan.AllContainers(pod) {
		context := c.SecurityContext
		if context == nil {
			context = &corev1.SecurityContext{}
		}
		check(c, "runAsUser", context.RunAsUser, podContext.RunAsUser, cfg.ProxyUID)
		check(c, "runAsGroup", context.RunAsGroup, podContext.RunAsGroup, cfg.ProxyGID)
	}
	return found
}

// unsatisfiable finds what a pod asks for and Kubernetes or the configured
// sidecar cannot do.
func unsatisfiable(pod *corev1.Pod, req annotation.Request, cfg config.Config) field.ErrorList {
	var errs field.ErrorList
	grace, drain := annotation.GracePeriod(pod), req.ProxyConfig.Drain
	if drain > 0 && drain >= grace && !req.Source.FromNamespace(annotation.ProxyConfigKey) {
		errs = append(errs, req.Source.Invalid(annotation.ProxyConfigKey, fmt.Sprintf(
			"%s is not less than the pod's terminationGracePeriodSeconds, %d, after which it is killed; accepted: less than that",
			drain, int64(grace.Seconds()))))
	}
	if ptr.Deref(req.NativeSidecar, false) && !cfg.Native() {
		errs = append(errs, req.Source.Invalid(annotation.NativeSidecarKey,
			"the cluster's API server knows no native sidecars, which are of Kubernetes 1.29; accepted: false, or no such annotation"))
	}
	errs = append(errs, ownResolvers(pod, cfg)...)
	if _, forged := pod.Annotations[podplan.RulesKey]; forged { // undo has taken out the injector's own
		errs = append(errs, req.Source.Invalid(podplan.RulesKey,
			"only the injector tells the node's agent what to do; accepted: no such annotation"))
	}
	if sidecar.FromNode(req.Mode, cfg) && cfg.DNSCapture == config.DNSCaptureResolvers {
		errs = append(errs, req.Source.Invalid(annotation.DNSCaptureKey,
			"the node's agent, which writes the rules, does not know the pod's resolvers; accepted with interceptFrom: node: none, all"))
	}
	if req.Spec.UDPPorts != nil && cfg.Sidecar.Type != config.SidecarCustom {
		// Its UDP listener sees neither the address nor the port that a client
		// sent to, and answers from its own.
		errs = append(errs, req.Source.Invalid(annotation.CaptureUDPPortsKey,
			"Envoy does not learn which port a datagram was sent to, and answers from its own; accepted: with a custom sidecar"))
	}
	return errs
}

// ownResolvers finds that DNS is captured and all nameservers run in the pod
// itself. Their own queries are captured too, and the proxy would return them to
// the server. Only with dnsPolicy None does the pod's spec have all nameservers;
// otherwise shunt-init checks what kubelet wrote.
func ownResolvers(pod *corev1.Pod, cfg config.Config) field.ErrorList {
	dns := pod.Spec.DNSConfig
	if cfg.DNSCapture == config.DNSCaptureNone || pod.Spec.DNSPolicy != corev1.DNSNone || dns == nil || len(dns.Nameservers) == 0 {
		return nil
	}
	for _, text := range dns.Nameservers {
		if addr, err := netip.ParseAddr(text); err != nil || !addr.IsLoopback() && !addr.IsUnspecified() {
			return nil // the API server denies what is no address
		}
	}
	return field.ErrorList{field.Invalid(podplan.SpecPath.Child("dnsConfig", "nameservers").Index(0), dns.Nameservers[0], fmt.Sprintf(
		"an address of the pod itself, whose own queries would be captured and come back to it; accepted: a nameserver outside the pod "+
			"beside it, or %s: none", annotation.DNSCaptureKey))}
}

// proxyPorts returns the ports that the proxy listens on.
func proxyPorts(req annotation.Request, cfg config.Config) map[corev1.Protocol][]uint16 {
	tcp := []uint16{interception.DefaultOutboundPort, interception.DefaultInboundPort, req.HealthPort()}
	ports := map[corev1.Protocol][]uint16{}
	if cfg.Sidecar.Type != config.SidecarCustom {
		tcp = append(tcp, interception.AdminPort, interception.MetricsPort)
	} else {
		for _, port := range cfg.Sidecar.Container.Ports {
			if port.ContainerPort == int32(interception.HealthPort) {
				continue // moved to the pod's health port, which is in the list
			}
			protocol := podplan.Protocol(port)
			ports[protocol] = append(ports[protocol], uint16(port.ContainerPort))
		}
	}
	if cfg.DNSCapture != config.DNSCaptureNone {
		tcp = append(tcp, interception.DefaultDNSPort)
		ports[corev1.ProtocolUDP] = append(ports[corev1.ProtocolUDP], interception.DefaultDNSPort)
	}
	ports[corev1.ProtocolTCP] = append(ports[corev1.ProtocolTCP], tcp...)
	for _, name := range req.Templates {
		if c := cfg.Templates[name].Container; c != nil {
			for _, port := range c.Ports {
				ports[podplan.Protocol(port)] = append(ports[podplan.Protocol(port)], uint16(port.ContainerPort))
			}
		}
	}
	return ports
}

// takenPorts finds containers that declare a port which the proxy listens on.
// Whichever binds it second fails: the proxy, or the application after the proxy
// restarted.
func takenPorts(pod *corev1.Pod, req annotation.Request, cfg config.Config) (found strict.Faults) {
	var ports map[corev1.Protocol][]uint16
	for _, c := range podplan.AllContainers(pod) {
		if podplan.IsContainerName(c.Name) {
			continue // takenNames reports it
		}
		for i, port := range c.Ports {
			if ports == nil {
				ports = proxyPorts(req, cfg)
			}
			if port.ContainerPort > 0 && slices.Contains(ports[podplan.Protocol(port)], uint16(port.ContainerPort)) {
				found.Add(func() *field.Error {
					return field.Invalid(c.Path().Child("ports").Index(i).Child("containerPort"), port.ContainerPort,
						"the proxy listens on this port; accepted: any other port")
				})
			}
		}
	}
	return found
}

// takenVolumes finds containers that mount one of our volumes: the proxy runs
// what is in them. The mount of shunt-init for a container's probes was removed
// before.
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
