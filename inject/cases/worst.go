package cases

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// Worst is a way to make an injector work for a pod: a pod of so many bytes,
// about, of which as much as fits is what costs most.
type Worst struct {
	Name string
	Pod  func(size int) *corev1.Pod
}

// WorstPods are the ways that somebody has thought of. A new list that a pod can
// make long gets a row.
func WorstPods() []Worst { //nolint:funlen // a table
	annotated := func(annotations ...string) *corev1.Pod {
		pod := Small()
		pod.Annotations = map[string]string{}
		for i := 0; i < len(annotations); i += 2 {
			pod.Annotations[annotations[i]] = annotations[i+1]
		}
		return pod
	}
	valued := func(name, key, begin, format, end string) Worst {
		return Worst{name, func(size int) *corev1.Pod { return annotated(key, begin+repeat(size, format)+end) }}
	}
	ofSpec := func(name string, fill func(spec *corev1.PodSpec, size int)) Worst {
		return Worst{name, func(size int) *corev1.Pod {
			pod := Small()
			fill(&pod.Spec, size)
			return pod
		}}
	}
	containers := func(name string, bytes int, container func(i int) corev1.Container) Worst {
		return ofSpec(name, func(spec *corev1.PodSpec, size int) {
			for i := range size / bytes {
				spec.Containers = append(spec.Containers, container(i))
			}
		})
	}
	return []Worst{
		valued("templates that nobody has", annotation.TemplatesKey, "sidecar", ",%d", ""),
		valued("one template often", annotation.TemplatesKey, "sidecar", ",a", ""),
		valued("user volumes", annotation.UserVolumeKey, "[", `{"name":"v%d","emptyDir":{}},`, `{"name":"z","emptyDir":{}}]`),
		valued("user volumes by name", annotation.UserVolumeKey, "{", `"v%d":{"emptyDir":{}},`, `"z":{"emptyDir":{}}}`),
		valued("one user volume often", annotation.UserVolumeKey, "[", `{"name":"v"},`, `{"name":"v"}]`),
		valued("user volumes with unknown fields", annotation.UserVolumeKey, "[", `{"name":"v%d","x":1},`, `{"name":"z"}]`),
		valued("mounts of nothing", annotation.UserVolumeMountKey,
			"[", `{"name":"v","mountPath":"/%d"},`, `{"name":"v","mountPath":"/z"}]`),
		valued("one mount often", annotation.UserVolumeMountKey, "[", `{"name":"v","mountPath":"/a"},`, `{"name":"v","mountPath":"/a"}]`),
		valued("ports", annotation.ExcludeInboundPortsKey, "80", ",%d", ""),
		valued("few ports often", annotation.ExcludeOutboundPortsKey, "80", ",81,83,85", ""),
		valued("ranges", annotation.IncludeOutboundIPRangesKey, "10.0.0.0/8", ",fd00::%x", ""),
		valued("interfaces", annotation.ExcludeInterfacesKey, "eth", ",i%d", ""),
		valued("components", annotation.ComponentLogLevelKey, "http:debug", ",c%d:off", ""),
		valued("proxy configuration of unknown fields", annotation.ProxyConfigKey, "", "f%d: 1\n", ""),
		valued("proxy configuration that is deep", annotation.ProxyConfigKey, "concurrency: ", "[", ""),
		valued("proxy configuration with one field often", annotation.ProxyConfigKey, "", "concurrency: 1\n", ""),
		valued("patterns of statistics", annotation.ProxyConfigKey, "proxyStatsMatcher: {inclusionRegexps: [", "'(%d',", "a]}"),
		containers("containers of another mesh", 60, named("kuma-sidecar")),
		containers("overrides of Istio's proxy", 60, func(int) corev1.Container {
			return corev1.Container{Name: "istio-proxy", Image: "auto"}
		}),
		containers("long names of another mesh's", 300, func(i int) corev1.Container {
			return corev1.Container{Name: "consul-dataplane-" + strings.Repeat("a", 200) + strconv.Itoa(i), Image: "a"}
		}),
		valued("a status that is none", podplan.StatusKey, "", "{", ""),
		{"keys with another prefix", func(size int) *corev1.Pod {
			pod := Small()
			pod.Annotations = map[string]string{}
			for i := range min(size, 200_000) / 100 {
				pod.Annotations[fmt.Sprintf("sidecar%s%d.example/interceptionMode", strings.Repeat("-", 64), i)] = ""
			}
			return pod
		}},
		{"interfaces of two kinds", func(size int) *corev1.Pod {
			return annotated(annotation.ExcludeInterfacesKey, "x"+repeat(size/3, ",i%d"),
				annotation.KubevirtInterfacesKey, "y"+repeat(size/3, ",i%d"),
				annotation.RerouteVirtualInterfacesKey, "z"+repeat(size/3, ",i%d"))
		}},
		{"udp ports of two kinds", func(size int) *corev1.Pod {
			var capture, reject strings.Builder
			for i := 1; i < 65534 && capture.Len() < size/2; i += 4 {
				fmt.Fprintf(&capture, ",%d", i)
				fmt.Fprintf(&reject, ",%d", i+2)
			}
			return annotated(annotation.InterceptionModeKey, "TPROXY",
				annotation.CaptureUDPPortsKey, capture.String()[1:], annotation.RejectUDPPortsKey, reject.String()[1:])
		}},
		{"user volumes, and volumes of the pod", func(size int) *corev1.Pod {
			volumes := repeat(min(size/2, 200_000), `{"name":"v%d","emptyDir":{}},`)
			pod := annotated(annotation.UserVolumeKey, "["+volumes+`{"name":"z","emptyDir":{}}]`)
			for i := range size / 60 {
				pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: fmt.Sprintf("w%d", i)})
			}
			return pod
		}},
		{"keys that nobody knows", func(size int) *corev1.Pod {
			pod := Small()
			pod.Labels = map[string]string{}
			for i := range size / 80 {
				pod.Labels[fmt.Sprintf("sidecar.istio.io/%060d", i)] = ""
			}
			return pod
		}},
		{"keys without a prefix", func(size int) *corev1.Pod {
			pod := Small()
			pod.Annotations = map[string]string{}
			for i := range size / 26 {
				pod.Annotations[fmt.Sprintf("excludeOutbound%06d", i)] = ""
			}
			return pod
		}},
		{"a long key", func(size int) *corev1.Pod {
			pod := Small()
			pod.Labels = map[string]string{"sidecar.istio.io/" + strings.Repeat("x", size): ""}
			return pod
		}},
		{"a status that records much", func(size int) *corev1.Pod { return recorded(size, 30) }},
		{"a status that records much of a large pod", func(size int) *corev1.Pod { return recorded(200_000, size/60) }},
		containers("containers of Shunt's name", 160, named(podplan.InitContainerName)),
		containers("containers of the proxy's name", 160, named(podplan.ProxyContainerName)),
		containers("containers of the proxy's user", 130, func(i int) corev1.Container {
			return corev1.Container{Name: fmt.Sprint("c", i), SecurityContext: &corev1.SecurityContext{RunAsUser: new(int64(1337))}}
		}),
		containers("containers with the proxy's ports", 130, func(i int) corev1.Container {
			return corev1.Container{Name: fmt.Sprint("c", i), Ports: []corev1.ContainerPort{{ContainerPort: 15001}}}
		}),
		containers("containers with tcpSocket probes", 250, func(i int) corev1.Container { return probed(fmt.Sprint("c", i)) }),
		containers("one container's name with tcpSocket probes", 250, func(int) corev1.Container { return probed("c") }),
		ofSpec("ports of a container that is probed by name", func(spec *corev1.PodSpec, size int) {
			app := probed("app")
			for i := range size / 40 {
				app.Ports = append(app.Ports, corev1.ContainerPort{Name: fmt.Sprint("p", i), ContainerPort: int32(i%60000 + 1)})
			}
			for _, probe := range []*corev1.Probe{app.LivenessProbe, app.ReadinessProbe, app.StartupProbe} {
				probe.TCPSocket.Port = intstr.FromString("none")
			}
			spec.Containers = []corev1.Container{app}
		}),
		ofSpec("volumes of Shunt's name", func(spec *corev1.PodSpec, size int) {
			for range size / 35 {
				spec.Volumes = append(spec.Volumes, corev1.Volume{Name: "shunt-shared"})
			}
		}),
		ofSpec("sysctls and pull secrets", func(spec *corev1.PodSpec, size int) {
			spec.SecurityContext = &corev1.PodSecurityContext{}
			for i := range size / 70 {
				spec.SecurityContext.Sysctls = append(spec.SecurityContext.Sysctls, corev1.Sysctl{Name: fmt.Sprint("net/", i)})
				spec.ImagePullSecrets = append(spec.ImagePullSecrets, corev1.LocalObjectReference{Name: fmt.Sprint("s", i)})
			}
		}),
		ofSpec("long names", func(spec *corev1.PodSpec, size int) {
			app := probed(strings.Repeat("\x01", size/12))
			app.SecurityContext = &corev1.SecurityContext{RunAsUser: new(int64(1337))}
			app.VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/shunt/" + strings.Repeat("<", size/12)}}
			spec.Containers = []corev1.Container{app}
		}),
		{"nothing but a long name", func(size int) *corev1.Pod {
			pod := Small()
			pod.Name, pod.GenerateName = strings.Repeat("n", size), ""
			return pod
		}},
		ofSpec("variables", func(spec *corev1.PodSpec, size int) {
			for i := range size / 30 {
				spec.Containers[0].Env = append(spec.Containers[0].Env, corev1.EnvVar{Name: fmt.Sprintf("V%06d", i), Value: "v"})
			}
		}),
		ofSpec("a long argument", func(spec *corev1.PodSpec, size int) { spec.Containers[0].Args = []string{strings.Repeat("x", size)} }),
	}
}

// repeat fills so many bytes with a format of a number, or of none.
func repeat(size int, format string) string {
	var text strings.Builder
	for i := 0; text.Len() < size; i++ {
		if strings.Contains(format, "%") {
			fmt.Fprintf(&text, format, i)
		} else {
			text.WriteString(format)
		}
	}
	return text.String()
}

// probed is a container whose probes Shunt has to replace.
func probed(name string) corev1.Container {
	probe := func() *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}}}
	}
	return corev1.Container{Name: name, LivenessProbe: probe(), ReadinessProbe: probe(), StartupProbe: probe()}
}

// recorded is a pod whose status records about so many bytes, and which has so
// many of what it says.
func recorded(size, has int) *corev1.Pod {
	pod, status := Small(), podplan.Status{Version: "1", Annotations: map[string]string{}}
	var app corev1.Container
	for i := range size / 120 {
		name := fmt.Sprint("n", i)
		status.InitContainers, status.Containers = append(status.InitContainers, name), append(status.Containers, name)
		status.Volumes, status.ImagePullSecrets = append(status.Volumes, name), append(status.ImagePullSecrets, name)
		status.Probes = append(status.Probes, podplan.Probe{Container: name, Kind: "livenessProbe"})
		status.Sysctls = append(status.Sysctls, name)
	}
	for i := range has / 3 {
		name := fmt.Sprint("n", i)
		app.VolumeMounts = append(app.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: "/" + name})
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name})
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name})
		pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	app.Name = "app"
	pod.Spec.Containers = append(pod.Spec.Containers, app)
	text, err := json.Marshal(status)
	if err != nil {
		panic("strings always marshal: " + err.Error())
	}
	pod.ObjectMeta = metav1.ObjectMeta{Name: "recorded", Annotations: map[string]string{podplan.StatusKey: string(text)}}
	return pod
}

// named returns a container of this name, whichever it is.
func named(name string) func(int) corev1.Container {
	return func(int) corev1.Container { return corev1.Container{Name: name} }
}
