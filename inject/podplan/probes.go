package podplan

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
)

// Probes is the unit of the pod's own tcpSocket probes. The proxy accepts every
// connection to an intercepted port, whether or not the application listens.
// shunt-init probes in kubelet's place, from within the pod, with connections
// that are not intercepted. Other kinds of probe reach the application, and stay
// as they are.
type Probes []PlannedProbe

// Probe is a tcpSocket probe that is replaced.
type Probe struct {
	// Container is the container's name, Kind the name of the field.
	Container string `json:"container"`
	Kind      string `json:"probe"`
	// Port is the tcpSocket's, as the pod has it.
	Port intstr.IntOrString `json:"port"`
}

// PlannedProbe is a Probe and the command that replaces it.
type PlannedProbe struct {
	Probe
	Command []string
}

// probeKinds are the fields of a container that hold probes.
var probeKinds = []struct {
	name string
	of   func(*corev1.Container) **corev1.Probe
}{
	{"livenessProbe", func(c *corev1.Container) **corev1.Probe { return &c.LivenessProbe }},
	{"readinessProbe", func(c *corev1.Container) **corev1.Probe { return &c.ReadinessProbe }},
	{"startupProbe", func(c *corev1.Container) **corev1.Probe { return &c.StartupProbe }},
}

// ProbeProgram is shunt-init's path in the pod's containers.
const ProbeProgram = envoy.SharedDirectory + "/shunt-init"

// NewProbes plans to replace the tcpSocket probes that the proxy would answer, in
// a pod whose traffic is intercepted.
func NewProbes(pod *corev1.Pod, spec interception.Spec) Probes {
	var probes Probes
	EachContainer(pod, func(c Placed) bool {
		for _, kind := range probeKinds {
			probe := *kind.of(c.Container)
			if probe == nil || probe.TCPSocket == nil || probe.TCPSocket.Host != "" {
				continue // with a host, kubelet probes somebody else
			}
			port := PortNumber(c.Container, probe.TCPSocket.Port)
			if port == 0 || spec.InboundExcludePorts.Contains(port) ||
				!spec.InboundPorts.All && !spec.InboundPorts.Ranges.Contains(port) {
				continue // no such port, which kubelet reports; or not intercepted
			}
			// It waits as long as kubelet would: one second by default.
			timeout := time.Duration(max(probe.TimeoutSeconds, 1)) * time.Second
			probes = append(probes, PlannedProbe{
				Probe{c.Name, kind.name, probe.TCPSocket.Port},
				[]string{ProbeProgram, "probe", "--port", strconv.Itoa(int(port)), "--timeout", timeout.String()},
			})
		}
		return true
	})
	return probes
}

// field returns the field that holds the probe; nil for an unknown kind.
func (p Probe) field(c *corev1.Container) **corev1.Probe {
	for _, kind := range probeKinds {
		if kind.name == p.Kind {
			return kind.of(c)
		}
	}
	return nil
}

// isProbeMount reports whether a mount is the one of ProbeProgram. A writable
// mount, by which a container could change the program, is not.
func isProbeMount(m *corev1.VolumeMount) bool {
	return equality.Semantic.DeepEqual(*m, SharedMount(true))
}

func hasProbeMount(c *corev1.Container) bool {
	return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return isProbeMount(&m) })
}

func (p *Probes) apply(edit *Edit) {
	edit.editProbes(len(*p), func(i int, containers map[string]Placed) {
		planned := (*p)[i]
		c, probe, path := planned.find(containers)
		if probe == nil {
			return
		}
		edit.setHandler(path, probe, corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: planned.Command}})
		if !hasProbeMount(c.Container) {
			extend(edit, c.pointer()+"/volumeMounts", &c.VolumeMounts, []corev1.VolumeMount{SharedMount(true)})
		}
	})
}

func (p *Probes) record(status *Status) {
	for _, planned := range *p {
		status.Probes = append(status.Probes, planned.Probe)
	}
}

// undo keeps probes that do not run shunt-init: the status may have been copied
// from another pod.
func (*Probes) undo(edit *Edit, status Status) {
	edit.editProbes(len(status.Probes), func(i int, containers map[string]Placed) {
		recorded := status.Probes[i]
		c, probe, path := recorded.find(containers)
		if c.Container == nil {
			return
		}
		if probe != nil && (*probe).Exec != nil && len((*probe).Exec.Command) > 0 && (*probe).Exec.Command[0] == ProbeProgram {
			edit.setHandler(path, probe, corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: recorded.Port}})
		}
		drop(edit, c.pointer()+"/volumeMounts", &c.VolumeMounts, isProbeMount)
	})
}

func (p *Probes) compare(pod *corev1.Pod) (same bool, changed []string) {
	if len(*p) == 0 {
		return true, nil
	}
	containers := byName(pod)
	for _, planned := range *p {
		c, probe, _ := planned.find(containers)
		if probe == nil || (*probe).Exec == nil || !slices.Equal((*probe).Exec.Command, planned.Command) || !hasProbeMount(c.Container) {
			changed = append(changed, fmt.Sprintf("the %s of container %s is another", planned.Kind, planned.Container))
		}
	}
	return len(changed) == 0, changed
}

// editProbes calls f n times, with containers that it may write to.
func (e *Edit) editProbes(n int, f func(i int, containers map[string]Placed)) {
	if n == 0 {
		return
	}
	e.copyContainers()
	containers := byName(&e.pod)
	for i := range n {
		f(i, containers)
	}
}

// find returns the container, and the probe's field with its JSON pointer; the
// field is nil if the container has no such probe.
func (p Probe) find(containers map[string]Placed) (c Placed, probe **corev1.Probe, path string) {
	c = containers[p.Container]
	if c.Container == nil {
		return c, nil, ""
	}
	if probe = p.field(c.Container); probe == nil || *probe == nil {
		return c, nil, ""
	}
	return c, probe, c.pointer() + "/" + p.Kind
}

// setHandler turns a probe's tcpSocket into exec, or back. It keeps a handler of
// another kind: the API server denies a probe with two.
func (e *Edit) setHandler(path string, probe **corev1.Probe, handler corev1.ProbeHandler) {
	if (*probe).TCPSocket != nil {
		e.remove(path + "/tcpSocket")
	}
	if (*probe).Exec != nil {
		e.remove(path + "/exec")
	}
	if handler.Exec != nil {
		e.add(path+"/exec", handler.Exec)
	} else {
		e.add(path+"/tcpSocket", handler.TCPSocket)
	}
	changed := **probe
	changed.TCPSocket, changed.Exec = handler.TCPSocket, handler.Exec
	*probe = &changed
}

// pointer returns the container's JSON pointer.
func (p Placed) pointer() string { return "/spec/" + p.List + "/" + strconv.Itoa(p.Index) }
