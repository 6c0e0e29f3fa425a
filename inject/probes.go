package inject

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
)

// Probe is a tcpSocket probe of one of the pod's own containers, which asks
// the application no longer once its port is intercepted: the proxy takes every
// connection, whether or not anybody listens behind it. shunt-init asks in its
// place, from within the pod, by connections that are not intercepted. All other
// kinds of probe get an answer of the application's, and stay as they are.
type Probe struct {
	// Container is the name of the container, and Kind the name of the field.
	Container string `json:"container"`
	Kind      string `json:"probe"`
	// Port is that of the tcpSocket, as the pod has it.
	Port intstr.IntOrString `json:"port"`
}

// PlannedProbe is a Probe with the command that is to be run in its place.
type PlannedProbe struct {
	Probe
	Command []string
}

// probeKinds are the fields of a container that hold probes.
var probeKinds = []struct {
	name string
	of   func(*corev1.Container) *corev1.Probe
}{
	{"livenessProbe", func(c *corev1.Container) *corev1.Probe { return c.LivenessProbe }},
	{"readinessProbe", func(c *corev1.Container) *corev1.Probe { return c.ReadinessProbe }},
	{"startupProbe", func(c *corev1.Container) *corev1.Probe { return c.StartupProbe }},
}

// probeProgram is shunt-init as containers of the pod find it.
const probeProgram = envoy.SharedDirectory + "/shunt-init"

// eachContainer calls f for every container of the pod that can have probes,
// and stops where f returns false.
func eachContainer(pod *corev1.Pod, f func(list string, i int, c *corev1.Container) bool) {
	for i := range pod.Spec.InitContainers {
		if !f("initContainers", i, &pod.Spec.InitContainers[i]) {
			return
		}
	}
	for i := range pod.Spec.Containers {
		if !f("containers", i, &pod.Spec.Containers[i]) {
			return
		}
	}
}

// tcpProbes are those that the rules make meaningless, unless the pod wants to
// keep them.
func tcpProbes(pod *corev1.Pod, req request) []PlannedProbe {
	if says(req.rewriteProbes, false) {
		return nil
	}
	return meaningless(pod, req)
}

// probeWarnings tells of probes that are kept and say nothing.
func probeWarnings(pod *corev1.Pod, req request) []string {
	if !says(req.rewriteProbes, false) {
		return nil
	}
	var warnings []string
	for _, p := range meaningless(pod, req) {
		warnings = append(warnings, fmt.Sprintf("the %s of container %q says yes as long as the proxy listens on its port, because of %s",
			p.Kind, p.Container, RewriteProbesKey))
	}
	return warnings
}

// meaningless are the tcpSocket probes that the proxy would answer.
func meaningless(pod *corev1.Pod, req request) []PlannedProbe {
	if req.mode == interception.ModeNone {
		return nil
	}
	var probes []PlannedProbe
	eachContainer(pod, func(_ string, _ int, c *corev1.Container) bool {
		for _, kind := range probeKinds {
			probe := kind.of(c)
			if probe == nil || probe.TCPSocket == nil || probe.TCPSocket.Host != "" {
				continue // of a host's: kubelet asks somebody else
			}
			port := portNumber(c, probe.TCPSocket.Port)
			if port == 0 || !intercepted(req.spec, port) {
				continue // kubelet says what is wrong with the port
			}
			probes = append(probes, PlannedProbe{
				Probe{c.Name, kind.name, probe.TCPSocket.Port}, probeCommand(port, probe.TimeoutSeconds),
			})
		}
		return true
	})
	return probes
}

// portNumber is a probe's port, by its name where it has one; 0 where there is
// no such port.
func portNumber(c *corev1.Container, port intstr.IntOrString) uint16 {
	number := port.IntVal
	if port.Type == intstr.String {
		i := slices.IndexFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == port.StrVal })
		if i < 0 {
			return 0
		}
		number = c.Ports[i].ContainerPort
	}
	if number < 1 || number > maxPort {
		return 0
	}
	return uint16(number)
}

// intercepted reports whether connections to a port of the pod go through the
// proxy.
func intercepted(spec interception.Spec, port uint16) bool {
	return !spec.InboundExcludePorts.Contains(port) && (spec.InboundPorts.All || spec.InboundPorts.Ranges.Contains(port))
}

// probeCommand asks for as long as kubelet would, which is a second unless the
// probe says otherwise.
func probeCommand(port uint16, timeoutSeconds int32) []string {
	timeout := time.Duration(max(timeoutSeconds, 1)) * time.Second
	return []string{probeProgram, "probe", "--port", strconv.Itoa(int(port)), "--timeout", timeout.String()}
}

// handler is what kubelet does for the probe.
func (p PlannedProbe) handler() corev1.ProbeHandler {
	return corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: slices.Clone(p.Command)}}
}

// restored is what kubelet did for it before.
func (p Probe) restored() corev1.ProbeHandler {
	return corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: p.Port}}
}

// find returns the container, and the probe in it; nil where the pod has none.
func (p Probe) find(containers map[string]*corev1.Container) (*corev1.Container, *corev1.Probe) {
	c := containers[p.Container]
	if c == nil {
		return nil, nil
	}
	for _, kind := range probeKinds {
		if kind.name == p.Kind {
			return c, kind.of(c)
		}
	}
	return c, nil
}

// byName are pointers into the pod: to the first container of each name.
func byName(pod *corev1.Pod) map[string]*corev1.Container {
	all := make(map[string]*corev1.Container, len(pod.Spec.InitContainers)+len(pod.Spec.Containers))
	eachContainer(pod, func(_ string, _ int, c *corev1.Container) bool {
		if _, there := all[c.Name]; !there {
			all[c.Name] = c
		}
		return true
	})
	return all
}

// in reports whether the pod of these containers has the probe as it is planned.
func (p PlannedProbe) in(containers map[string]*corev1.Container) bool {
	container, probe := p.find(containers)
	return probe != nil && probe.Exec != nil && slices.Equal(probe.Exec.Command, p.Command) &&
		slices.ContainsFunc(container.VolumeMounts, isProbeMount)
}

// isProbeMount reports whether a mount is the one that shows a container the
// program, and not one by which the program could be written.
func isProbeMount(m corev1.VolumeMount) bool {
	return equality.Semantic.DeepEqual(m, sharedMount(true))
}

// setProbes puts them into a pod, which is changed.
func setProbes(pod *corev1.Pod, probes []PlannedProbe) {
	if len(probes) == 0 {
		return
	}
	containers := byName(pod)
	for _, p := range probes {
		container, probe := p.find(containers)
		if probe == nil {
			continue
		}
		probe.ProbeHandler = p.handler()
		if !slices.ContainsFunc(container.VolumeMounts, isProbeMount) {
			container.VolumeMounts = append(container.VolumeMounts, sharedMount(true))
		}
	}
}

// unsetProbes makes those that a status records what they were. A status may
// have been copied from another pod: a probe that does not run shunt-init stays.
func unsetProbes(pod *corev1.Pod, recorded []Probe) {
	if len(recorded) == 0 {
		return
	}
	containers := byName(pod)
	for _, p := range recorded {
		container, probe := p.find(containers)
		if container == nil {
			continue
		}
		if probe != nil && probe.Exec != nil && len(probe.Exec.Command) > 0 && probe.Exec.Command[0] == probeProgram {
			probe.ProbeHandler = p.restored()
		}
		container.VolumeMounts = slices.DeleteFunc(container.VolumeMounts, isProbeMount)
		if len(container.VolumeMounts) == 0 {
			container.VolumeMounts = nil
		}
	}
}

// mostProbes is how many tcpSocket probes a pod may have: each is recorded in an
// annotation.
const mostProbes = 1000

// takenPaths finds mounts where a container needs shunt-init for its probes.
func takenPaths(pod *corev1.Pod, req request) (found faults) {
	probes := tcpProbes(pod, req)
	if len(probes) > mostProbes {
		found.add(func() *field.Error {
			return field.Invalid(specPath, fmt.Sprintf("%d tcpSocket probes", len(probes)), fmt.Sprintf(
				"each has to be replaced and recorded; accepted: %d, or with %s: \"false\"", mostProbes, RewriteProbesKey))
		})
		return found
	}
	probed := map[string]bool{}
	for _, p := range probes {
		probed[p.Container] = true
	}
	eachContainer(pod, func(list string, i int, c *corev1.Container) bool {
		if !probed[c.Name] {
			return true
		}
		for j, m := range c.VolumeMounts {
			if within(path.Clean(m.MountPath), envoy.SharedDirectory) {
				found.add(func() *field.Error {
					at := specPath.Child(list).Index(i).Child("volumeMounts").Index(j).Child("mountPath")
					return field.Invalid(at, m.MountPath, "shunt-init, which the container's tcpSocket probes need, is there; "+
						"accepted: a path that is not "+envoy.SharedDirectory+" or below it")
				})
			}
		}
		return true
	})
	return found
}

// patchProbes does what setProbes and unsetProbes do: base is the pod without
// us. The lists that containers stand in are as they were.
func (p Plan) patchProbes(pod, base *corev1.Pod) []Operation {
	recorded, _ := ReadStatus(pod)
	if len(p.Probes) == 0 && len(recorded.Probes) == 0 {
		return nil
	}
	wanted := base.DeepCopy()
	setProbes(wanted, p.Probes)
	containers := byName(wanted)
	var ops []Operation
	eachContainer(pod, func(list string, i int, c *corev1.Container) bool {
		want := containers[c.Name]
		if want == nil {
			return true // one of ours
		}
		at := "/spec/" + list + "/" + strconv.Itoa(i)
		for _, kind := range probeKinds {
			ops = append(ops, patchProbe(at+"/"+kind.name, kind.of(c), kind.of(want))...)
		}
		ops = append(ops, patchMounts(at+"/volumeMounts", c.VolumeMounts, want.VolumeMounts)...)
		return true
	})
	return ops
}

// patchProbe changes what a probe does, where that is one of the two things
// that setProbes and unsetProbes make of each other.
func patchProbe(at string, have, want *corev1.Probe) []Operation {
	switch {
	case have == nil || want == nil:
		return nil
	case have.TCPSocket != nil && want.Exec != nil:
		return []Operation{{Op: "remove", Path: at + "/tcpSocket"}, add(at+"/exec", encode(want.Exec))}
	case have.Exec != nil && want.TCPSocket != nil:
		return []Operation{{Op: "remove", Path: at + "/exec"}, add(at+"/tcpSocket", encode(want.TCPSocket))}
	case have.Exec != nil && want.Exec != nil && !slices.Equal(have.Exec.Command, want.Exec.Command):
		return []Operation{add(at+"/exec", encode(want.Exec))}
	default:
		return nil
	}
}

// patchMounts puts the mount of shunt-init in, or takes it out.
func patchMounts(at string, have, want []corev1.VolumeMount) []Operation {
	had, wanted := slices.IndexFunc(have, isProbeMount), slices.ContainsFunc(want, isProbeMount)
	switch {
	case had < 0 && wanted && len(have) == 0:
		return []Operation{add(at, array(encodeEach([]corev1.VolumeMount{sharedMount(true)})))}
	case had < 0 && wanted:
		return []Operation{add(at+"/-", encode(sharedMount(true)))}
	case had >= 0 && !wanted && len(have) == 1:
		return []Operation{{Op: "remove", Path: at}}
	case had >= 0 && !wanted:
		return []Operation{{Op: "remove", Path: at + "/" + strconv.Itoa(had)}}
	default:
		return nil
	}
}
