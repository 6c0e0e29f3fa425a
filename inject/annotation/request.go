package annotation

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/strict"
)

// Request is what the labels and annotations of a pod and its namespace ask
// for, parsed.
type Request struct {
	PodInject       *bool  // InjectKey; nil where it is absent
	NamespaceInject *bool  // NamespaceInjectionKey; nil where it is absent
	Revision        string // RevisionKey, also a wrong one; empty where it is absent
	Mode            interception.Mode
	Spec            interception.Spec // System is set by the mode, when all is read
	Source          Source

	// What a pod or namespace has of its own, where the configuration has it
	// for all; the zero value where there is no annotation.
	DNSCapture        config.DNSCapture
	ProtocolDetection config.ProtocolDetection
	httpPorts         interception.PortRanges
	accessLog         envoy.AccessLog
	ProxyConfig       ProxyConfig
	RewriteProbes     *bool
	NativeSidecar     *bool
	logLevel          string
	ComponentLogLevel string
	ProxyResources    Quantities
	ProxyImage        string

	UserVolumes       []corev1.Volume
	UserMounts        []corev1.VolumeMount
	Templates         []string // without the first, which is the sidecar
	BootstrapOverride string   // the name of a ConfigMap

	Health    Health
	Readiness Readiness

	// What combine puts into the spec, beside what else is there.
	excludedInbound interception.PortRanges
	rerouted        []string

	AllowProxyIdentity *bool // AllowProxyIdentityKey
}

// newRequest is what a pod without annotations asks for.
func newRequest() Request {
	req := Request{Mode: interception.ModeRedirect, Spec: interception.Default()}
	req.Spec.TunnelPort = 0 // the injector's sidecars have no tunnel: the port is the application's
	return req
}

func onePort(port uint16) interception.PortRange {
	return interception.PortRange{First: port, Last: port}
}

// combine puts together what several annotations say of one thing, when all of
// them are read.
func (r *Request) combine() {
	virtual := sets.New(r.Spec.VirtualInterfaces...)
	for _, name := range r.rerouted {
		if !virtual.Has(name) {
			r.Spec.VirtualInterfaces = append(r.Spec.VirtualInterfaces, name)
		}
	}
	r.Spec.InboundExcludePorts = interception.NewPortRanges(append(r.leftAlone(), r.excludedInbound...)...)
}

// leftAlone are the inbound ports that are not intercepted though nobody asks
// for it.
//
//	includeInboundPorts | the proxy's health and metrics | 22, 15020
//	*                   | left alone: kubelet's probes and Prometheus would run through the proxy | left alone, as by Istio's rules
//	a list              | left alone                     | intercepted where they are in it
func (r *Request) leftAlone() []interception.PortRange {
	ports := []interception.PortRange{onePort(r.HealthPort()), onePort(interception.MetricsPort)}
	if r.Spec.InboundPorts.All {
		ports = append(ports, onePort(interception.SSHPort), onePort(interception.StatusPort))
	}
	return ports
}

// problems are what is wrong with a value of the row's key.
func (a Row) problems(place Place, text string, err error) []Problem {
	var inside *strict.InsideError
	if !errors.As(err, &inside) {
		return []Problem{{Key: a.Key, Place: place, Err: a.invalid(place, text, err)}}
	}
	all := make([]Problem, len(inside.Told))
	for i, wrong := range inside.Told {
		placed := *wrong
		if !strings.HasPrefix(placed.Field, "[") { // of a list
			placed.Field = "." + placed.Field
		}
		placed.Field = Paths[place].Key(a.Key).String() + placed.Field
		all[i] = Problem{Key: a.Key, Place: place, Err: &placed}
	}
	all[len(all)-1].More = inside.More
	return all
}

// Problem is a field of a pod or namespace that cannot be read.
type Problem struct {
	Key   string // of the table, where one is meant
	Place Place
	Err   *field.Error
	More  int // faults of the same kind that are not told
}

// Read parses every key of the table, and returns all that is wrong
// with them at once. Of a namespace's annotation that the pod has, too, the
// pod's counts, and the other one may say what it wants.
func Read(pod *corev1.Pod, ns Namespace) (Request, []Problem) {
	values := map[Place]map[string]string{
		PodAnnotation: pod.Annotations, PodLabel: pod.Labels, NamespaceAnnotation: ns.Annotations, NamespaceLabel: ns.Labels,
	}
	// Kubernetes looks at this only after admission.
	long := Size(pod.Annotations) > apivalidation.TotalAnnotationSizeLimitB
	if long {
		kept := map[string]string{}
		if text, present := pod.Annotations[InjectKey]; present {
			kept[InjectKey] = text
		}
		values[PodAnnotation] = kept
	}
	req := newRequest()
	req.Source = newSource(pod, ns)
	var problems []Problem
	for _, row := range table {
		for _, place := range row.Places {
			text, present := values[place][row.Key]
			if !present || row.read == nil || req.Source.overridden(row.Key, place) {
				continue
			}
			if err := row.read(&req, text); err != nil {
				problems = append(problems, row.problems(place, text, err)...)
			}
		}
	}
	if long {
		tooLong := field.TooLong(Paths[PodAnnotation], "", apivalidation.TotalAnnotationSizeLimitB)
		problems = append(problems, Problem{Place: PodAnnotation, Err: tooLong})
	}
	req.combine()
	if req.Mode == interception.ModeTProxy {
		req.Spec.System = interception.SystemTProxy
	}
	problems = append(problems, misspeltInject(PodAnnotation, pod.Annotations)...)
	problems = append(problems, misspeltInject(PodLabel, pod.Labels)...)
	problems = append(problems, req.unsupportedInMode(problems)...)
	problems = append(problems, req.tooManyRanges()...)
	return req, append(problems, req.contradictions()...)
}

// maxRanges is how many IP ranges a pod may have. Each is a rule, and
// shunt-init has the memory of a small container to write and read them with:
// docs/shunt-init.md has what so many take.
const maxRanges = 10_000

// tooManyRanges refuses the longer list where both are too long together.
func (r *Request) tooManyRanges() []Problem {
	included, excluded := len(r.Spec.OutboundCIDRs.Prefixes), len(r.Spec.OutboundExcludeCIDRs)
	if included+excluded <= maxRanges {
		return nil
	}
	key := IncludeOutboundIPRangesKey
	if excluded > included {
		key = ExcludeOutboundIPRangesKey
	}
	detail := fmt.Sprintf("%d ranges; accepted: %d in %s and %s together", included+excluded, maxRanges,
		IncludeOutboundIPRangesKey, ExcludeOutboundIPRangesKey)
	return []Problem{{Key: key, Place: r.Source.Place(key), Err: r.Source.Invalid(key, detail)}}
}

// Size is what Kubernetes bounds.
func Size(annotations map[string]string) int {
	size := 0
	for key, value := range annotations {
		size += len(key) + len(value)
	}
	return size
}

// unsupportedInMode finds what the pod's mode does not have, and takes it out of the
// request: the rules could not be built from it. Nothing is said where the
// mode itself could not be read.
func (r *Request) unsupportedInMode(found []Problem) []Problem {
	unread := slices.ContainsFunc(found, func(p Problem) bool { return p.Key == InterceptionModeKey })
	mode := string(r.Mode)
	if r.Source.FromNamespace(InterceptionModeKey) {
		mode += ", which the namespace's " + InterceptionModeKey + " says"
	}
	var problems []Problem
	refuse := func(key, accepted string) {
		if !unread && !r.UnusedInNone(key) {
			problems = append(problems, Problem{Key: key, Place: r.Source.Place(key), Err: r.Source.Invalid(key, fmt.Sprintf(
				"not in mode %s; accepted: with %s: %s", mode, InterceptionModeKey, accepted))})
		}
	}
	if r.Mode == interception.ModeNone && r.DNSCapture != "" && r.DNSCapture != config.DNSCaptureNone {
		refuse(DNSCaptureKey, "REDIRECT or TPROXY")
	}
	samePlace := r.Source.Place(ProtocolDetectionKey) == r.Source.Place(HTTPPortsKey)
	if r.ProtocolDetection == config.ProtocolDetectionNone && r.httpPorts != nil && samePlace {
		problems = append(problems, Problem{Key: HTTPPortsKey, Place: r.Source.Place(HTTPPortsKey), Err: r.Source.Invalid(HTTPPortsKey,
			fmt.Sprintf("%s says that no port is looked at; accepted: with declared", ProtocolDetectionKey))})
	}
	if r.Mode == interception.ModeTProxy {
		return problems
	}
	if r.Spec.UDPPorts != nil {
		refuse(CaptureUDPPortsKey, "TPROXY")
	}
	if r.Spec.RejectUDPPorts != nil {
		refuse(RejectUDPPortsKey, "TPROXY")
	}
	r.Spec.UDPPorts, r.Spec.RejectUDPPorts = nil, nil
	return problems
}

// invalid says what is wrong with a value of the row's key: the whole value,
// the part of it that is wrong, and what is accepted.
func (a Row) invalid(place Place, text string, err error) *field.Error {
	detail := "accepted: " + a.Accepted
	var wrong *interception.ValueError
	if errors.As(err, &wrong) {
		if wrong.Reason != "" {
			detail = wrong.Reason + "; " + detail
		}
		if wrong.Value != text {
			detail = fmt.Sprintf("%q: %s", strict.Shorten(wrong.Value), detail)
		}
	}
	return field.Invalid(Paths[place].Key(a.Key), strict.Shorten(text), detail)
}

// contradictions says what interception.Spec.Validate finds in the words of
// the annotations that the values came from.
func (r Request) contradictions() []Problem {
	joined, ok := r.Spec.Validate().(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	all := joined.Unwrap()
	var problems []Problem
	for i, err := range all {
		if i == strict.MostTold {
			problems[i-1].More = len(all) - i
			break
		}
		key, detail := "", err.Error()
		var flag *interception.FlagError
		if errors.As(err, &flag) {
			detail = flag.Err.Error()
		}
		for _, row := range table {
			if row.Flag == "" {
				continue
			}
			// Two keys become one flag: the one that is there is meant.
			if flag != nil && flag.Flag == "--"+row.Flag && (key == "" || r.Source.Has(row.Key)) {
				key = row.Key
			}
			detail = strings.ReplaceAll(detail, "--"+row.Flag, r.Source.Name(row.Key))
		}
		problems = append(problems, Problem{Key: key, Place: r.Source.Place(key), Err: r.Source.Invalid(key, detail)})
	}
	return problems
}
