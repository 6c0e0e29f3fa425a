package podplan

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// In TPROXY the proxy's connection to the application has the client's address
// and a port that the kernel allocates in the pod. The client's own port is from
// the same range, so that a new connection may collide with one that is open or
// was just closed, and stall. A range of the pod's own keeps them apart. Both
// sysctls are on Kubernetes' list of safe ones (the second since 1.27): a pod may
// set them on every node.
const (
	// portRangeSysctl is the range from which the kernel allocates local ports.
	portRangeSysctl = "net.ipv4.ip_local_port_range"
	// reservedSysctl are ports excluded from ephemeral allocation.
	reservedSysctl = "net.ipv4.ip_local_reserved_ports"
	// UnprivilegedSysctl is the first port that an unprivileged program can bind,
	// in IPv6 too. Some container runtimes set it to 0 in every pod; otherwise the
	// proxy cannot listen below LeastPort. It is on Kubernetes' list of safe ones
	// since 1.22.
	UnprivilegedSysctl = "net.ipv4.ip_unprivileged_port_start"
)

// sysctlNames are all sysctls that the injector may set.
var sysctlNames = []string{portRangeSysctl, reservedSysctl, UnprivilegedSysctl}

// LeastPort is the first port that an unprivileged program can bind by default:
// the kernel accepts no portRangeSysctl that begins below it.
const LeastPort = 1024

// Sysctls is the unit of the sysctls in the pod's security context.
type Sysctls []corev1.Sysctl

// NewSysctls plans the range of local ports, if there is one, and for a health
// port below LeastPort sets UnprivilegedSysctl to 0: a higher value might be more
// than the runtime's own, and take ports from the application. A pod keeps its
// own sysctls. proxy is the sidecar's container.
func NewSysctls(pod *corev1.Pod, proxy corev1.Container, healthPort uint16, drawn *interception.PortRange) Sysctls {
	var set Sysctls
	if drawn != nil && !hasSysctl(pod, portRangeSysctl) {
		set = Sysctls{{Name: portRangeSysctl, Value: fmt.Sprintf("%d %d", drawn.First, drawn.Last)}}
		if reserved := listening(pod, proxy, healthPort, *drawn); len(reserved) > 0 && !hasSysctl(pod, reservedSysctl) {
			set = append(set, corev1.Sysctl{Name: reservedSysctl, Value: reserved.String()})
		}
	}
	if healthPort < LeastPort && !hasSysctl(pod, UnprivilegedSysctl) {
		set = append(set, corev1.Sysctl{Name: UnprivilegedSysctl, Value: "0"})
	}
	return set
}

// listening returns the ports of a range that something in the pod listens on:
// the kernel must not allocate them before.
func listening(pod *corev1.Pod, proxy corev1.Container, healthPort uint16, drawn interception.PortRange) interception.PortRanges {
	var ports []interception.PortRange
	add := func(port uint16) {
		if drawn.Contains(port) {
			ports = append(ports, interception.PortRange{First: port, Last: port})
		}
	}
	for _, port := range []uint16{
		interception.DefaultOutboundPort, interception.DefaultInboundPort, interception.DefaultDNSPort,
		healthPort, interception.StatusPort, interception.MetricsPort, interception.AdminPort,
	} {
		add(port)
	}
	for _, c := range append(AllContainers(pod), Placed{Container: &proxy}) {
		for _, port := range c.Ports {
			if 0 < port.ContainerPort && port.ContainerPort <= MaxPort {
				add(uint16(port.ContainerPort))
			}
		}
	}
	return interception.NewPortRanges(ports...)
}

// hasSysctl reports whether a pod sets a sysctl, with dots or slashes in its
// name.
func hasSysctl(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(sysctlsOf(pod), func(s corev1.Sysctl) bool {
		return strings.ReplaceAll(s.Name, "/", ".") == name
	})
}

func sysctlsOf(pod *corev1.Pod) []corev1.Sysctl {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.Sysctls
}

func sysctlName(s *corev1.Sysctl) string { return s.Name }

const (
	securityContextPath = "/spec/securityContext"
	sysctlsPath         = securityContextPath + "/sysctls"
)

func (s *Sysctls) apply(edit *Edit) {
	if len(*s) == 0 {
		return
	}
	if edit.pod.Spec.SecurityContext == nil {
		edit.pod.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: *s}
		edit.add(securityContextPath, map[string]any{"sysctls": *s})
		return
	}
	context := *edit.pod.Spec.SecurityContext
	extend(edit, sysctlsPath, &context.Sysctls, *s)
	edit.pod.Spec.SecurityContext = &context
}

func (s *Sysctls) record(status *Status) {
	for i := range *s {
		status.Sysctls = append(status.Sysctls, (*s)[i].Name)
	}
}

func (*Sysctls) undo(edit *Edit, status Status) {
	if edit.pod.Spec.SecurityContext == nil || len(status.Sysctls) == 0 {
		return
	}
	context := *edit.pod.Spec.SecurityContext
	recorded, before := sets.New(status.Sysctls...), len(edit.operations)
	drop(edit, sysctlsPath, &context.Sysctls, func(s *corev1.Sysctl) bool {
		return slices.Contains(sysctlNames, s.Name) && recorded.Has(s.Name)
	})
	edit.pod.Spec.SecurityContext = &context
	// An empty security context was added for the sysctls, or means the same as none.
	if equality.Semantic.DeepEqual(context, corev1.PodSecurityContext{}) {
		edit.pod.Spec.SecurityContext, edit.operations = nil, edit.operations[:before]
		edit.remove(securityContextPath)
	}
}

// compare does not describe a different value of a sysctl: it follows from ports
// that others added to the pod.
func (s *Sysctls) compare(pod *corev1.Pod) (same bool, changed []string) {
	actual := sysctlsOf(pod)
	return containsEach(actual, *s), missing("sysctl", namesOf(*s, sysctlName), namesOf(actual, sysctlName))
}
