package inject

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/strict"
)

// problem is a field of a pod or namespace that cannot be read.
type problem struct {
	key   string // of the table, where one is meant
	place Place
	err   *field.Error
	more  int // strict.Faults of the same kind that are not told
}

var paths = map[Place]*field.Path{
	PodAnnotation:       field.NewPath("metadata", "annotations"),
	PodLabel:            field.NewPath("metadata", "labels"),
	NamespaceAnnotation: field.NewPath(ofNamespace, "metadata", "annotations"),
	NamespaceLabel:      field.NewPath("metadata", "labels"),
}

// ofNamespace begins the paths of what a pod is refused for and does not have
// itself.
const ofNamespace = "namespace"

// OfNamespace reports whether a field of Decision.Errors is not the pod's, but
// its namespace's.
func OfNamespace(path string) bool { return strings.HasPrefix(path, ofNamespace+".") }

// readRequest parses every key of the table, and returns all that is wrong
// with them at once. Of a namespace's annotation that the pod has, too, the
// pod's counts, and the other one may say what it wants.
func readRequest(pod *corev1.Pod, ns Namespace) (request, []problem) {
	values := map[Place]map[string]string{
		PodAnnotation: pod.Annotations, PodLabel: pod.Labels, NamespaceAnnotation: ns.Annotations, NamespaceLabel: ns.Labels,
	}
	// Kubernetes looks at this only after admission.
	long := annotationsSize(pod.Annotations) > apivalidation.TotalAnnotationSizeLimitB
	if long {
		kept := map[string]string{}
		if text, present := pod.Annotations[InjectKey]; present {
			kept[InjectKey] = text
		}
		values[PodAnnotation] = kept
	}
	req := newRequest()
	req.from = newSource(pod, ns)
	var problems []problem
	for _, row := range annotations {
		for _, place := range row.Places {
			text, present := values[place][row.Key]
			if !present || row.read == nil || req.from.overridden(row.Key, place) {
				continue
			}
			if err := row.read(&req, text); err != nil {
				problems = append(problems, row.problems(place, text, err)...)
			}
		}
	}
	if long {
		tooLong := field.TooLong(paths[PodAnnotation], "", apivalidation.TotalAnnotationSizeLimitB)
		problems = append(problems, problem{place: PodAnnotation, err: tooLong})
	}
	req.combine()
	if req.mode == interception.ModeTProxy {
		req.spec.System = interception.SystemTProxy
	}
	problems = append(problems, misspeltInject(PodAnnotation, pod.Annotations)...)
	problems = append(problems, misspeltInject(PodLabel, pod.Labels)...)
	problems = append(problems, req.otherMode(problems)...)
	problems = append(problems, req.tooManyRanges()...)
	return req, append(problems, req.contradictions()...)
}

// maxRanges is how many IP ranges a pod may have. Each is a rule, and
// shunt-init has the memory of a small container to write and read them with:
// docs/shunt-init.md has what so many take.
const maxRanges = 10_000

// tooManyRanges refuses the longer list where both are too long together.
func (r *request) tooManyRanges() []problem {
	included, excluded := len(r.spec.OutboundCIDRs.Prefixes), len(r.spec.OutboundExcludeCIDRs)
	if included+excluded <= maxRanges {
		return nil
	}
	key := IncludeOutboundIPRangesKey
	if excluded > included {
		key = ExcludeOutboundIPRangesKey
	}
	detail := fmt.Sprintf("%d ranges; accepted: %d in %s and %s together", included+excluded, maxRanges,
		IncludeOutboundIPRangesKey, ExcludeOutboundIPRangesKey)
	return []problem{{key: key, place: r.from.place(key), err: r.from.invalid(key, detail)}}
}

// annotationsSize is what Kubernetes bounds.
func annotationsSize(annotations map[string]string) int {
	size := 0
	for key, value := range annotations {
		size += len(key) + len(value)
	}
	return size
}

// otherMode finds what the pod's mode does not have, and takes it out of the
// request: the rules could not be built from it. Nothing is said where the
// mode itself could not be read.
func (r *request) otherMode(found []problem) []problem {
	unread := slices.ContainsFunc(found, func(p problem) bool { return p.key == InterceptionModeKey })
	mode := string(r.mode)
	if r.from.ofNamespace(InterceptionModeKey) {
		mode += ", which the namespace's " + InterceptionModeKey + " says"
	}
	var problems []problem
	refuse := func(key, accepted string) {
		if !unread && !r.idleInNone(key) {
			problems = append(problems, problem{key: key, place: r.from.place(key), err: r.from.invalid(key, fmt.Sprintf(
				"not in mode %s; accepted: with %s: %s", mode, InterceptionModeKey, accepted))})
		}
	}
	if r.mode == interception.ModeNone && r.dns != "" && r.dns != DNSCaptureNone {
		refuse(DNSCaptureKey, "REDIRECT or TPROXY")
	}
	if r.mode == interception.ModeNone && ptr.Deref(r.dropInvalid, false) {
		refuse(DropInvalidKey, "REDIRECT or TPROXY")
	}
	if r.detection == ProtocolDetectionNone && r.httpPorts != nil && r.from.place(ProtocolDetectionKey) == r.from.place(HTTPPortsKey) {
		problems = append(problems, problem{key: HTTPPortsKey, place: r.from.place(HTTPPortsKey), err: r.from.invalid(HTTPPortsKey,
			fmt.Sprintf("%s says that no port is looked at; accepted: with declared", ProtocolDetectionKey))})
	}
	if r.mode == interception.ModeTProxy {
		return problems
	}
	if r.spec.UDPPorts != nil {
		refuse(CaptureUDPPortsKey, "TPROXY")
	}
	if r.spec.RejectUDPPorts != nil {
		refuse(RejectUDPPortsKey, "TPROXY")
	}
	r.spec.UDPPorts, r.spec.RejectUDPPorts = nil, nil
	return problems
}

// refuse says what is wrong with a value of the row's key: the whole value,
// the part of it that is wrong, and what is accepted.
func (a Annotation) refuse(place Place, text string, err error) *field.Error {
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
	return field.Invalid(paths[place].Key(a.Key), strict.Shorten(text), detail)
}

// contradictions says what interception.Spec.Validate finds in the words of
// the annotations that the values came from.
func (r request) contradictions() []problem {
	joined, ok := r.spec.Validate().(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	all := joined.Unwrap()
	var problems []problem
	for i, err := range all {
		if i == strict.MostTold {
			problems[i-1].more = len(all) - i
			break
		}
		key, detail := "", err.Error()
		var flag *interception.FlagError
		if errors.As(err, &flag) {
			detail = flag.Err.Error()
		}
		for _, row := range annotations {
			if row.Flag == "" {
				continue
			}
			// Two keys become one flag: the one that is there is meant.
			if flag != nil && flag.Flag == "--"+row.Flag && (key == "" || r.from.has(row.Key)) {
				key = row.Key
			}
			detail = strings.ReplaceAll(detail, "--"+row.Flag, r.from.name(row.Key))
		}
		problems = append(problems, problem{key: key, place: r.from.place(key), err: r.from.invalid(key, detail)})
	}
	return problems
}
