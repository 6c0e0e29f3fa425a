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
	PodInject       *bool  // InjectKey; nil if absent
	NamespaceInject *bool  // NamespaceInjectionKey; nil if absent
	Revision        string // RevisionKey, also an invalid value; empty if absent
	Mode            interception.Mode
	Spec            interception.Spec // Read sets System last, from the mode
	Source          Source

	// Settings that override the configuration's; the zero value without an
	// annotation.
	InterceptFrom     config.InterceptFrom
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
	Templates         []string // without the first, which is BuiltinTemplate
	BootstrapOverride string   // the name of a ConfigMap

	Health    Health
	Readiness Readiness

	// Values that combine adds to Spec.
	excludedInbound interception.PortRanges
	rerouted        []string

	AllowProxyIdentity *bool // AllowProxyIdentityKey
}

// newRequest returns the request of a pod without annotations.
func newRequest() Request {
	req := Request{Mode: interception.ModeRedirect, Spec: interception.Default()}
	req.Spec.TunnelPort = 0 // the injector's sidecars have no tunnel: the port is the application's
	return req
}

func onePort(port uint16) interception.PortRange {
	return interception.PortRange{First: port, Last: port}
}

// combine merges values that come from several annotations. It runs when all of
// them are read.
func (r *Request) combine() {
	virtual := sets.New(r.Spec.VirtualInterfaces...)
	for _, name := range r.rerouted {
		if !virtual.Has(name) {
			r.Spec.VirtualInterfaces = append(r.Spec.VirtualInterfaces, name)
		}
	}
	r.Spec.InboundExcludePorts = interception.NewPortRanges(append(r.defaultInboundExcludes(), r.excludedInbound...)...)
}

// defaultInboundExcludes returns the inbound ports that are excluded by default. The
// probes of kubelet and the requests of Prometheus reach the proxy directly.
//
//	includeInboundPorts | the proxy's health and metrics | 22, 15020
//	*                   | excluded                       | excluded, as by Istio's rules
//	a list              | excluded                       | intercepted if listed
func (r *Request) defaultInboundExcludes() []interception.PortRange {
	ports := []interception.PortRange{onePort(r.HealthPort()), onePort(interception.MetricsPort)}
	if r.Spec.InboundPorts.All {
		ports = append(ports, onePort(interception.SSHPort), onePort(interception.StatusPort))
	}
	return ports
}

// problems returns the problems of a value that could not be read: one, or one for
// each fault inside a YAML or JSON value.
func (r Row) problems(place Place, text string, err error) []Problem {
	var inside *strict.InsideError
	if !errors.As(err, &inside) {
		return []Problem{{Key: r.Key, Place: place, Err: r.invalid(place, text, err)}}
	}
	all := make([]Problem, len(inside.Told))
	for i, wrong := range inside.Told {
		placed := *wrong
		if !strings.HasPrefix(placed.Field, "[") { // an index needs no dot
			placed.Field = "." + placed.Field
		}
		placed.Field = Paths[place].Key(r.Key).String() + placed.Field
		all[i] = Problem{Key: r.Key, Place: place, Err: &placed}
	}
	all[len(all)-1].More = inside.More
	return all
}

// Problem is an invalid field of a pod or namespace.
type Problem struct {
	Key   string // the key in the table; empty if there is none
	Place Place
	Err   *field.Error
	More  int // how many faults of the same kind are not reported
}

// Read parses every key of the table and returns all problems together. A pod's
// annotation overrides its namespace's, which is then not even parsed.
func Read(pod *corev1.Pod, ns Namespace) (Request, []Problem) {
	values := map[Place]map[string]string{
		PodAnnotation: pod.Annotations, PodLabel: pod.Labels, NamespaceAnnotation: ns.Annotations, NamespaceLabel: ns.Labels,
	}
	// Kubernetes checks the size only after admission. Of annotations that are too
	// long, only InjectKey is read.
	tooLarge := Size(pod.Annotations) > apivalidation.TotalAnnotationSizeLimitB
	if tooLarge {
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
	if tooLarge {
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
	return req, append(problems, req.contradictions()...)
}

// TooManyRanges returns an error for the longer list if both together have more
// than interception.MaxRanges. configured are excluded where no annotation says what is.
func (r *Request) TooManyRanges(configured interception.Prefixes) field.ErrorList {
	included, excluded, whose := len(r.Spec.OutboundCIDRs.Prefixes), len(r.Spec.OutboundExcludeCIDRs), ExcludeOutboundIPRangesKey
	if !r.Source.Has(ExcludeOutboundIPRangesKey) {
		excluded, whose = len(configured), "the configuration's excludeOutboundIPRanges"
	}
	if included+excluded <= interception.MaxRanges {
		return nil
	}
	key := IncludeOutboundIPRangesKey
	if excluded > included && r.Source.Has(ExcludeOutboundIPRangesKey) {
		key = ExcludeOutboundIPRangesKey
	}
	return field.ErrorList{r.Source.Invalid(key, fmt.Sprintf("%d ranges; accepted: %d in %s and %s together",
		included+excluded, interception.MaxRanges, IncludeOutboundIPRangesKey, whose))}
}

// Size returns the bytes of all keys and values, which Kubernetes limits.
func Size(annotations map[string]string) int {
	size := 0
	for key, value := range annotations {
		size += len(key) + len(value)
	}
	return size
}

// unsupportedInMode returns a problem for each setting that the pod's mode does not
// support, unless the mode itself is invalid. It removes UDP ports from the request,
// because the rules could not be built with them.
func (r *Request) unsupportedInMode(found []Problem) []Problem {
	modeInvalid := slices.ContainsFunc(found, func(p Problem) bool { return p.Key == InterceptionModeKey })
	mode := string(r.Mode)
	if r.Source.FromNamespace(InterceptionModeKey) {
		mode += " (set by the namespace's " + InterceptionModeKey + ")"
	}
	var problems []Problem
	deny := func(key, accepted string) {
		if !modeInvalid && !r.unusedInNone(key) {
			problems = append(problems, Problem{Key: key, Place: r.Source.Place(key), Err: r.Source.Invalid(key, fmt.Sprintf(
				"not in mode %s; accepted: with %s: %s", mode, InterceptionModeKey, accepted))})
		}
	}
	if r.Mode == interception.ModeNone && r.DNSCapture != "" && r.DNSCapture != config.DNSCaptureNone {
		deny(DNSCaptureKey, "REDIRECT or TPROXY")
	}
	samePlace := r.Source.Place(ProtocolDetectionKey) == r.Source.Place(HTTPPortsKey)
	if r.ProtocolDetection == config.ProtocolDetectionNone && r.httpPorts != nil && samePlace {
		problems = append(problems, Problem{Key: HTTPPortsKey, Place: r.Source.Place(HTTPPortsKey), Err: r.Source.Invalid(HTTPPortsKey,
			fmt.Sprintf("%s turns detection off; accepted: with declared", ProtocolDetectionKey))})
	}
	if r.Mode == interception.ModeTProxy {
		return problems
	}
	if r.Spec.UDPPorts != nil {
		deny(CaptureUDPPortsKey, "TPROXY")
	}
	if r.Spec.RejectUDPPorts != nil {
		deny(RejectUDPPortsKey, "TPROXY")
	}
	r.Spec.UDPPorts, r.Spec.RejectUDPPorts = nil, nil
	return problems
}

// invalid returns an error with the value, the part of it that is wrong, and what
// is accepted.
func (r Row) invalid(place Place, text string, err error) *field.Error {
	detail := "accepted: " + r.Accepted
	var wrong *interception.ValueError
	if errors.As(err, &wrong) {
		if wrong.Reason != "" {
			detail = wrong.Reason + "; " + detail
		}
		if wrong.Value != text {
			detail = fmt.Sprintf("%q: %s", strict.Shorten(wrong.Value), detail)
		}
	}
	return field.Invalid(Paths[place].Key(r.Key), strict.Shorten(text), detail)
}

// contradictions returns the errors of interception.Spec.Validate, with the keys of
// the annotations in place of shunt-init's flags.
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
			// Two keys set the same flag: report the one that is present.
			if flag != nil && flag.Flag == "--"+row.Flag && (key == "" || r.Source.Has(row.Key)) {
				key = row.Key
			}
			detail = strings.ReplaceAll(detail, "--"+row.Flag, r.Source.Name(row.Key))
		}
		problems = append(problems, Problem{Key: key, Place: r.Source.Place(key), Err: r.Source.Invalid(key, detail)})
	}
	return problems
}
