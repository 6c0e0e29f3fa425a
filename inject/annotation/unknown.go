package annotation

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/inject/strict"
)

// ownPrefixes begin keys that are for an injector: one that Shunt does not know
// is a misspelling, or for Istio's control plane.
var ownPrefixes = []string{sidecarPrefix, TrafficPrefix, proxyPrefix, ShuntPrefix}

// Why Shunt does not act on some of Istio's keys.
const (
	ofControlPlane = "it is for Istio's control plane, and Shunt has none"
	ofAgent        = "it is for Istio's agent, and Shunt runs Envoy without one"
	ofStatistics   = "Envoy keeps all its statistics"
	ofSidecar      = "what the proxy is and has is a matter of the injector's configuration: sidecar"
)

// unsupportedKeys are Istio's keys on which Shunt does not act, each with the reason.
var unsupportedKeys = map[string]string{
	proxyPrefix + "overrides":                            ofSidecar,
	sidecarPrefix + "agentLogLevel":                      ofAgent,
	sidecarPrefix + "controlPlaneAuthPolicy":             ofControlPlane,
	sidecarPrefix + "discoveryAddress":                   ofControlPlane,
	sidecarPrefix + "enableCoreDump":                     "it would take a privileged container",
	sidecarPrefix + "extraStatTags":                      ofStatistics,
	sidecarPrefix + "proxyImageType":                     "the image is the one of the injector's configuration",
	sidecarPrefix + "statsCompression":                   ofStatistics,
	sidecarPrefix + "statsEvictionInterval":              ofStatistics,
	sidecarPrefix + "statsFlushInterval":                 ofStatistics,
	sidecarPrefix + "statsHistogramBins":                 ofStatistics,
	sidecarPrefix + "statsHistogramBuckets":              ofStatistics,
	sidecarPrefix + "statsInclusionPrefixes":             ofStatistics,
	sidecarPrefix + "statsInclusionRegexps":              ofStatistics,
	sidecarPrefix + "statsInclusionSuffixes":             ofStatistics,
	"readiness.status.sidecar.istio.io/applicationPorts": ofAgent,
}

// unsupportedPrefixes begin Istio's keys of pods that are for something else than its
// sidecar, each with the reason why Shunt does not act on them.
var unsupportedPrefixes = map[string]string{
	"ambient.istio.io":    "it is for Istio's ambient mode, which has no sidecars",
	"networking.istio.io": ofControlPlane,
	"prometheus.istio.io": "it is for Istio's agent, which merges the application's metrics with the proxy's; Shunt's Envoy has its own " +
		"at port 15090",
}

// unsupportedReason says why Shunt does not act on a key of Istio's in a place; empty
// for any other.
func unsupportedReason(key string, place Place) string {
	if reason, is := unsupportedKeys[key]; is {
		return reason
	}
	if prefix, _, _ := strings.Cut(key, "/"); place != NamespaceAnnotation {
		return unsupportedPrefixes[prefix]
	}
	return ""
}

// rowsByName finds the rows whose keys have a name behind the slash, in small
// letters.
var rowsByName = func() map[string][]*Row {
	rows := map[string][]*Row{}
	for i := range table {
		if _, name, cut := strings.Cut(strings.ToLower(table[i].Key), "/"); cut && table[i].read != nil {
			rows[name] = append(rows[name], &table[i])
		}
	}
	return rows
}()

// otherPrefix is the key of the table that is meant by one that has its name and
// not its prefix, but one of the same domain, or one that is less than a third
// different; empty for any other.
func otherPrefix(key string) string {
	prefix, name, _ := strings.Cut(strings.ToLower(key), "/")
	if len(prefix) > longestKey {
		return ""
	}
	for _, row := range rowsByName[name] {
		wanted, _, _ := strings.Cut(row.Key, "/")
		domain := "istio.io"
		if strings.HasPrefix(row.Key, ShuntPrefix) {
			domain = strings.TrimSuffix(ShuntPrefix, "/")
		}
		if strings.HasSuffix(prefix, domain) || strict.Distance(prefix, wanted) <= len(wanted)/3 {
			return row.Key
		}
	}
	return ""
}

// RowsByKey finds a row of the table by its key in small letters.
var RowsByKey = func() map[string]*Row {
	rows := make(map[string]*Row, len(table))
	for i := range table {
		rows[strings.ToLower(table[i].Key)] = &table[i]
	}
	return rows
}()

// longestKey is that of a key with its prefix, by Kubernetes.
const longestKey = 253 + len("/") + longestName

// rowByKey finds a row by its key in whatever capitals.
func rowByKey(key string) (*Row, bool) {
	if len(key) > longestKey {
		return nil, false
	}
	row, known := RowsByKey[strings.ToLower(key)]
	return row, known
}

// misspeltInject finds the key that asks for the proxy, or declines it, in
// other capitals, which is refused. Any other key that is not understood costs
// a setting, and a warning is enough; for this one the pod would run without
// the proxy that it asks for, or with one that it does not want.
func misspeltInject(place Place, values map[string]string) []Problem {
	var problems []Problem
	for key, text := range values {
		if key != InjectKey && strings.EqualFold(key, InjectKey) {
			err := field.Invalid(Paths[place].Key(key), strict.Shorten(text), "unknown key; accepted: "+InjectKey)
			problems = append(problems, Problem{Key: InjectKey, Place: place, Err: err})
		}
	}
	slices.SortFunc(problems, func(a, b Problem) int { return strings.Compare(a.Err.Field, b.Err.Field) })
	return problems
}

// AddKeyWarnings warns of keys of the pod and annotations of its namespace that
// look as if they were for Shunt, and on which it does not act.
func AddKeyWarnings(w *strict.Warnings, pod *corev1.Pod, ns Namespace) {
	for _, of := range []struct {
		place  Place
		values map[string]string
	}{{PodAnnotation, pod.Annotations}, {PodLabel, pod.Labels}, {NamespaceAnnotation, ns.Annotations}} {
		var wrong []string
		for key := range of.values {
			if !understood(key, of.place) {
				wrong = append(wrong, key)
			}
		}
		slices.Sort(wrong)
		told := min(len(wrong), strict.MostTold)
		for _, key := range wrong[:told] {
			w.Add(fmt.Sprintf("%s: %s", Paths[of.place].Key(strict.Shorten(key)), notUnderstood(key, of.place)))
		}
		w.Count(len(wrong) - told)
	}
}

// understood reports whether a key is one that is read in the place, or none
// that an injector would read.
func understood(key string, place Place) bool {
	row, known := rowByKey(key)
	switch {
	case !known:
		return unsupportedReason(key, place) == "" && otherPrefix(key) == "" &&
			!slices.ContainsFunc(ownPrefixes, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
	case place != NamespaceAnnotation && (row.Key == NamespaceInjectionKey || row.Key == InjectKey):
		return true // the one is no pod's, the other is not just warned of
	case key == RevisionKey && place == PodAnnotation:
		return true // Istio writes it, to say which revision it was
	default:
		return row.Key == key && slices.Contains(row.Places, place)
	}
}

// notUnderstood says why Shunt does not act on a key, and what may be meant.
func notUnderstood(key string, place Place) string {
	if reason := unsupportedReason(key, place); reason != "" {
		return "Shunt does not act on this key: " + reason
	}
	row, known := rowByKey(key)
	switch {
	case known && row.Key != key:
		return fmt.Sprintf("unknown key, on which Shunt does not act; did you mean %s?", row.Key)
	case known:
		return fmt.Sprintf("not read as a %s; did you mean it as a %s?", place, row.Places[len(row.Places)-1])
	}
	if near := cmp.Or(otherPrefix(key), nearest(key)); near != "" {
		return fmt.Sprintf("unknown key, on which Shunt does not act; did you mean %s?", near)
	}
	return "unknown key, on which Shunt does not act"
}

// longestName is that of a key behind its slash, by Kubernetes.
const longestName = 63

// nearest is the key of the table whose part behind the slash is the least
// different from the given one's, in capitals or not; empty where none is less
// than a third different. What stands before the slash counts last: a key often
// is right but for it.
func nearest(key string) string {
	prefix, name, _ := strings.Cut(strings.ToLower(key), "/")
	if len(key) > longestKey || len(name) > longestName {
		return ""
	}
	var found string
	least := len(name)/3 + 1
	for _, row := range table {
		rowPrefix, rowName, cut := strings.Cut(strings.ToLower(row.Key), "/")
		if !cut || row.read == nil {
			continue
		}
		d := strict.Distance(name, rowName)
		if d < least || (d == least && found != "" && rowPrefix == prefix) {
			found, least = row.Key, d
		}
	}
	return found
}
