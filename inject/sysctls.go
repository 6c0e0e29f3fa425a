package inject

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// In TPROXY the proxy's connection to the application has the client's address
// and a port that the kernel draws in the pod. The client drew its own from the
// same range, and so a new connection may meet another one of the two that is
// open, or was just closed, and stall. A range of the pod's own keeps them apart.
// Both sysctls are on Kubernetes' list of safe ones (the second since 1.27): a pod
// may set them on every node.
const (
	// portRangeSysctl is where the kernel draws local ports from.
	portRangeSysctl = "net.ipv4.ip_local_port_range"
	// reservedSysctl are those of them that it does not draw.
	reservedSysctl = "net.ipv4.ip_local_reserved_ports"
	// unprivilegedSysctl is the first port that a program without privileges can
	// have, in IPv6 too. Some container runtimes set it to 0 in every pod; where
	// they do not, the proxy could not listen below leastPort. It is on
	// Kubernetes' list of safe ones since 1.22.
	unprivilegedSysctl = "net.ipv4.ip_unprivileged_port_start"
)

// defaultPortRange is below that of clients, which is from 32768 on unless
// somebody has set it, and below the NodePorts of a cluster. One end is odd: of
// ends of the same parity the kernel complains in its log, for each pod.
const defaultPortRange = "10000-31999"

// sysctlNames are all that the injector may set.
var sysctlNames = []string{portRangeSysctl, reservedSysctl, unprivilegedSysctl}

// leastPort is the first that a program without privileges can have: the
// kernel takes no range that begins below it.
const leastPort = 1024

const acceptedPortRange = "a range of ports from 1024 on such as 10000-31999, or an empty value to leave the pod's range as it is"

// parsePortRange reads a range of more than one port, or none.
func parsePortRange(text string) (*interception.PortRange, error) {
	ports, err := interception.ParsePortRanges(text)
	if err != nil || len(ports) > 1 || len(ports) == 1 && (ports[0].First < leastPort || ports[0].First == ports[0].Last) {
		return nil, &interception.ValueError{Value: text, Accepted: acceptedPortRange}
	}
	if len(ports) == 0 {
		return nil, nil
	}
	return &ports[0], nil
}

func checkPortRange(path *field.Path, text string) field.ErrorList {
	if _, err := parsePortRange(text); err != nil {
		return field.ErrorList{field.Invalid(path, text, "accepted: "+acceptedPortRange)}
	}
	return nil
}

// sysctls are those that a pod gets: in TPROXY a range of ports to draw from, and
// for a health port below leastPort all ports for everybody, of which the
// runtime's own value may be and less would take some from the application. A
// pod that has its own keeps them.
func sysctls(pod *corev1.Pod, sidecar corev1.Container, req request, cfg Config) []corev1.Sysctl {
	var set []corev1.Sysctl
	if req.mode == interception.ModeTProxy {
		set = portSysctls(pod, sidecar, req.health(), cfg)
	}
	if req.health() < leastPort && !hasSysctl(pod, unprivilegedSysctl) {
		set = append(set, corev1.Sysctl{Name: unprivilegedSysctl, Value: "0"})
	}
	return set
}

// portSysctls are those of TPROXY. A pod that has a range of its own keeps it,
// and a list of reserved ports, too.
func portSysctls(pod *corev1.Pod, sidecar corev1.Container, health uint16, cfg Config) []corev1.Sysctl {
	drawn, err := parsePortRange(cfg.TProxyPortRange)
	if err != nil {
		panic("port range from a valid configuration: " + err.Error())
	}
	if drawn == nil || hasSysctl(pod, portRangeSysctl) {
		return nil
	}
	set := []corev1.Sysctl{{Name: portRangeSysctl, Value: fmt.Sprintf("%d %d", drawn.First, drawn.Last)}}
	if reserved := listening(pod, sidecar, health, *drawn); len(reserved) > 0 && !hasSysctl(pod, reservedSysctl) {
		set = append(set, corev1.Sysctl{Name: reservedSysctl, Value: reserved.String()})
	}
	return set
}

// listening are the ports of a range that somebody in the pod listens on, or
// will: were such a port drawn before, it would be taken.
func listening(pod *corev1.Pod, sidecar corev1.Container, health uint16, drawn interception.PortRange) interception.PortRanges {
	var ports []interception.PortRange
	add := func(port uint16) {
		if drawn.Contains(port) {
			ports = append(ports, interception.PortRange{First: port, Last: port})
		}
	}
	for _, port := range []uint16{
		interception.DefaultOutboundPort, interception.DefaultInboundPort, interception.DefaultDNSPort,
		health, interception.StatusPort, interception.MetricsPort, interception.AdminPort,
	} {
		add(port)
	}
	for _, c := range append(containersOf(pod), placed{Container: &sidecar}) {
		for _, port := range c.Ports {
			if 0 < port.ContainerPort && port.ContainerPort <= maxPort {
				add(uint16(port.ContainerPort))
			}
		}
	}
	return interception.NewPortRanges(ports...)
}

// maxPort is the last there is. Kubernetes refuses others, but later.
const maxPort = 1<<16 - 1

// hasSysctl reports whether a pod sets a sysctl, with dots or slashes in its
// name.
func hasSysctl(pod *corev1.Pod, name string) bool {
	return pod.Spec.SecurityContext != nil && slices.ContainsFunc(pod.Spec.SecurityContext.Sysctls, func(s corev1.Sysctl) bool {
		return strings.ReplaceAll(s.Name, "/", ".") == name
	})
}

// setSysctls puts them into a pod.
func setSysctls(pod *corev1.Pod, set []corev1.Sysctl) {
	if len(set) == 0 {
		return
	}
	if pod.Spec.SecurityContext == nil {
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{}
	}
	pod.Spec.SecurityContext.Sysctls = append(pod.Spec.SecurityContext.Sysctls, set...)
}

// unsetSysctls takes those that a status records out of a pod.
func unsetSysctls(pod *corev1.Pod, recorded []string) {
	context := pod.Spec.SecurityContext
	if context == nil || len(recorded) == 0 {
		return
	}
	known := setOf(recorded)
	context.Sysctls = slices.DeleteFunc(context.Sysctls, func(s corev1.Sysctl) bool {
		return slices.Contains(sysctlNames, s.Name) && known[s.Name]
	})
	// One that says nothing was put there for them, or is as good as none.
	if equality.Semantic.DeepEqual(*context, corev1.PodSecurityContext{}) {
		pod.Spec.SecurityContext = nil
	}
}
