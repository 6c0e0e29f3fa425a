package check

import (
	"net"
	"net/url"
	"slices"
	"strconv"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject/config"
)

// Snapshot is what was read of a cluster at one time.
type Snapshot struct {
	Now        time.Time
	Webhooks   []admissionregistrationv1.MutatingWebhookConfiguration
	Namespaces []corev1.Namespace
	Pods       []corev1.Pod
	// Workloads are what makes the pods. Events are those of reason FailedCreate,
	// those that the webhook wrote, and warnings about pods of Homes and Agents.
	Workloads []Workload
	Events    []corev1.Event
	// Services, Deployments, ConfigMaps and HomePods are those of Homes.
	Services    []corev1.Service
	Deployments []appsv1.Deployment
	ConfigMaps  []corev1.ConfigMap
	HomePods    []corev1.Pod
	// Agents are those of shunt-node.
	Agents Agents
	// Unread maps each resource that the user may not read to the error, such as
	// statefulsets.apps.
	Unread map[string]error
	// Certificates are by the name of their Target.
	Certificates map[string]Served
	// Replicas are those of the webhooks that were asked for their configuration.
	Replicas []Replica
	// NativeSidecars reports whether the API server knows native sidecars.
	NativeSidecars bool
	// Config replaces the cluster's configuration, unless it is nil.
	Config *config.Config
}

// Served is the certificate of a Target.
type Served struct {
	From  string // where it was read, in words
	Chain []byte // PEM, the webhook's own first
	// Problem is why there is none.
	Problem string
}

// Target is where a webhook's certificate can be fetched.
type Target struct {
	// Name is the address that API servers call, as host:port.
	Name string
	// Direct means that anybody can call the address.
	Direct bool
	// Namespace, Pods and Port are those of the pods behind a Service; ready
	// ones only.
	Namespace string
	Pods      []string
	Port      int32
	// Secret of the Namespace that the pods serve from; empty if it is not known.
	Secret string
}

// Homes returns the namespaces of the services that Shunt's webhooks name.
func Homes(webhooks []admissionregistrationv1.MutatingWebhookConfiguration) []string {
	var names []string
	for _, configuration := range webhooks {
		for _, w := range ours(configuration) {
			if s := w.ClientConfig.Service; s != nil {
				names = append(names, s.Namespace)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Resources that are read, as Snapshot.Unread names them.
const (
	resourceWebhooks    = "mutatingwebhookconfigurations.admissionregistration.k8s.io"
	resourceServices    = "services"
	resourceDeployments = "deployments.apps"
	resourceConfigMaps  = "configmaps"
)

// cannotRead reports whether the user may not read a resource.
func (s Snapshot) cannotRead(resource string) bool {
	_, cannot := s.Unread[resource]
	return cannot
}

// Targets returns those of all of Shunt's webhooks, each once.
func (s Snapshot) Targets() []Target {
	var targets []Target
	for _, in := range s.installations() {
		for _, w := range in.webhooks {
			target := in.target(w.ClientConfig, s.HomePods)
			if !slices.ContainsFunc(targets, func(t Target) bool { return t.Name == target.Name }) {
				targets = append(targets, target)
			}
		}
	}
	return targets
}

func (in installation) target(c admissionregistrationv1.WebhookClientConfig, home []corev1.Pod) Target {
	target := Target{Name: address(c), Direct: c.Service == nil}
	if target.Direct || in.service == nil {
		return target
	}
	target.Namespace = in.service.Namespace
	target.Secret = in.secret()
	for _, port := range in.service.Spec.Ports {
		if port.Port == servicePort(c.Service) {
			target.Port = in.containerPort(port)
		}
	}
	for _, pod := range home {
		if in.serves(pod) {
			target.Pods = append(target.Pods, pod.Name)
		}
	}
	return target
}

// serves reports whether a pod is a ready one of the webhooks' Service.
func (in installation) serves(pod corev1.Pod) bool {
	return pod.Namespace == in.service.Namespace && isSubset(in.service.Spec.Selector, pod.Labels) && ready(pod)
}

func ready(pod corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// address returns the host:port that API servers call.
func address(c admissionregistrationv1.WebhookClientConfig) string {
	if c.Service != nil {
		return net.JoinHostPort(serverName(c), strconv.Itoa(int(servicePort(c.Service))))
	}
	parsed, err := url.Parse(deref(c.URL))
	if err != nil || parsed.Port() != "" {
		return hostOf(parsed)
	}
	return net.JoinHostPort(parsed.Hostname(), "443")
}

func hostOf(u *url.URL) string {
	if u == nil {
		return ""
	}
	return u.Host
}

// serverName returns the name that the certificate has to be for.
func serverName(c admissionregistrationv1.WebhookClientConfig) string {
	if c.Service != nil {
		return c.Service.Name + "." + c.Service.Namespace + ".svc"
	}
	host, _, err := net.SplitHostPort(address(c))
	if err != nil {
		return address(c)
	}
	return host
}

func servicePort(s *admissionregistrationv1.ServiceReference) int32 {
	if s.Port == nil {
		return 443
	}
	return *s.Port
}

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

func isSubset(some, all map[string]string) bool {
	for key, value := range some {
		if have, ok := all[key]; !ok || have != value {
			return false
		}
	}
	return len(some) > 0
}
