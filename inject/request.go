package inject

import (
	"errors"
	"fmt"
	"maps"
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
	problems = append(problems, misplaced(PodAnnotation, pod.Annotations)...)
	problems = append(problems, misplaced(PodLabel, pod.Labels)...)
	return req, append(problems, contradictions(req.spec, pod)...)
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

// misplaced finds keys that look as if they were in the table and are not: an
// unknown one under TrafficPrefix, a known one in other capitals, or a known
// one in a place where it is not read. Each of them is a wish about a pod's
// traffic that would be ignored without a word.
func misplaced(place Place, values map[string]string) []problem {
	var problems []problem
	for _, key := range slices.Sorted(maps.Keys(values)) {
		row := slices.IndexFunc(annotations, func(a Annotation) bool { return strings.EqualFold(a.Key, key) })
		meant := key
		var detail string
		switch {
		case row < 0 && strings.HasPrefix(key, TrafficPrefix):
			detail = "unknown key; accepted: " + strings.Join(keysUnder(TrafficPrefix), ", ")
		case row < 0 || annotations[row].Key == NamespaceInjectionKey:
			continue
		case annotations[row].Key != key:
			meant = annotations[row].Key
			detail = "unknown key; accepted: " + meant
		case !slices.Contains(annotations[row].Places, place):
			detail = fmt.Sprintf("not read as a %s; accepted: as a %s", place, annotations[row].Places[0])
		default:
			continue
		}
		problems = append(problems, problem{meant, place, field.Invalid(paths[place].Key(key), shorten(values[key]), detail)})
	}
	return problems
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

// unknownKeys are those under Istio's prefix for pods that Shunt does not act
// on. Istio has many; a pod that carries them for Istio is not wrong.
func unknownKeys(pod *corev1.Pod) []string {
	prefix, _, _ := strings.Cut(InjectKey, "/")
	var unknown []string
	for _, key := range slices.Sorted(maps.Keys(pod.Annotations)) {
		known := slices.ContainsFunc(annotations, func(a Annotation) bool { return a.Key == key })
		if strings.HasPrefix(key, prefix+"/") && !known {
			unknown = append(unknown, key)
		}
	}
	return unknown
}

func keysUnder(prefix string) []string {
	var keys []string
	for _, row := range annotations {
		if strings.HasPrefix(row.Key, prefix) {
			keys = append(keys, row.Key)
		}
	}
	return keys
}

// shorten keeps a message readable: an annotation may hold 256 KiB.
func shorten(text string) string {
	const most = 200
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
