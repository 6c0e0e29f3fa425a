package inject

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// problem is a field of a pod or namespace that cannot be read.
type problem struct {
	key   string // of the table, where one is meant
	place Place
	err   *field.Error
}

var paths = map[Place]*field.Path{
	PodAnnotation:  field.NewPath("metadata", "annotations"),
	PodLabel:       field.NewPath("metadata", "labels"),
	NamespaceLabel: field.NewPath("metadata", "labels"),
}

// readRequest parses every key of the table, and returns all that is wrong
// with them at once.
func readRequest(pod *corev1.Pod, ns Namespace) (request, []problem) {
	values := map[Place]map[string]string{
		PodAnnotation: pod.Annotations, PodLabel: pod.Labels, NamespaceLabel: ns.Labels,
	}
	req := newRequest()
	var problems []problem
	for _, row := range annotations {
		for _, place := range row.Places {
			text, present := values[place][row.Key]
			if !present || row.read == nil {
				continue
			}
			if err := row.read(&req, text); err != nil {
				problems = append(problems, problem{row.Key, place, row.refuse(place, text, err)})
			}
		}
	}
	if req.mode == interception.ModeTProxy {
		req.spec.System = interception.SystemTProxy
	}
	problems = append(problems, misspeltInject(PodAnnotation, pod.Annotations)...)
	problems = append(problems, misspeltInject(PodLabel, pod.Labels)...)
	problems = append(problems, req.otherMode(pod, problems)...)
	return req, append(problems, contradictions(req.spec, pod)...)
}

// otherMode finds what the pod's mode does not have, and takes it out of the
// request: the rules could not be built from it. Nothing is said where the
// mode itself could not be read.
func (r *request) otherMode(pod *corev1.Pod, found []problem) []problem {
	unread := slices.ContainsFunc(found, func(p problem) bool { return p.key == InterceptionModeKey })
	var problems []problem
	refuse := func(key, accepted string) {
		if !unread {
			problems = append(problems, problem{key, PodAnnotation, invalid(pod, key, fmt.Sprintf(
				"not in mode %s; accepted: with %s: %s", r.mode, InterceptionModeKey, accepted))})
		}
	}
	if r.mode == interception.ModeNone && r.dns != "" && r.dns != DNSCaptureNone {
		refuse(DNSCaptureKey, "REDIRECT or TPROXY")
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

// invalid refuses the value of a pod's annotation.
func invalid(pod *corev1.Pod, key, detail string) *field.Error {
	return field.Invalid(paths[PodAnnotation].Key(key), shorten(pod.Annotations[key]), detail)
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
			detail = fmt.Sprintf("%q: %s", shorten(wrong.Value), detail)
		}
	}
	return field.Invalid(paths[place].Key(a.Key), shorten(text), detail)
}

// contradictions says what interception.Spec.Validate finds in the words of
// the annotations that the values came from.
func contradictions(spec interception.Spec, pod *corev1.Pod) []problem {
	joined, ok := spec.Validate().(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	var problems []problem
	for _, err := range joined.Unwrap() {
		key, text, detail := "", "", err.Error()
		var flag *interception.FlagError
		if errors.As(err, &flag) {
			detail = flag.Err.Error()
		}
		for _, row := range annotations {
			if row.Flag == "" {
				continue
			}
			if flag != nil && flag.Flag == "--"+row.Flag {
				key, text = row.Key, pod.Annotations[row.Key]
			}
			detail = strings.ReplaceAll(detail, "--"+row.Flag, row.Key)
		}
		problems = append(problems, problem{key, PodAnnotation,
			field.Invalid(paths[PodAnnotation].Key(key), shorten(text), detail)})
	}
	return problems
}

// shorten keeps a message readable: an annotation may hold 256 KiB.
func shorten(text string) string {
	const most = 200
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
