package annotation

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/inject/strict"
)

// ownPrefixes begin keys that are for an injector. An unknown key with one of them
// is misspelt, or for Istio's control plane.
var ownPrefixes = []string{sidecarPrefix, TrafficPrefix, proxyPrefix, ShuntPrefix}

// Why Shunt does not act on some of Istio's keys.
const (
	ofControlPlane = "it is for Istio's control plane, and Shunt has none"
	ofAgent        = "it is for Istio's agent, and Shunt runs Envoy without one"
	ofStatistics   = "Envoy keeps its statistics with its own tags, intervals and buckets"
	byStatsMatcher = "further statistics are named by " + configStats + " in " + ProxyConfigKey
	ofSidecar      = "what the proxy is and has is a matter of the injector's configuration: sidecar"
)

// unsupportedKeys maps each of Istio's keys that Shunt does not support to the reason.
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
	sidecarPrefix + "statsInclusionPrefixes":             byStatsMatcher,
	sidecarPrefix + "statsInclusionRegexps":              ofStatistics,
	sidecarPrefix + "statsInclusionSuffixes":             byStatsMatcher,
	"readiness.status.sidecar.istio.io/applicationPorts": ofAgent,
}

// unsupportedPrefixes maps each prefix of Istio's keys that are not for its sidecar
// to the reason why Shunt does not support them.
var unsupportedPrefixes = map[string]string{
	"ambient.istio.io":    "it is for Istio's ambient mode, which has no sidecars",
	"networking.istio.io": ofControlPlane,
	"prometheus.istio.io": "it is for Istio's agent, which merges the application's metrics with the proxy's; Shunt's Envoy has its own " +
		"at port 15090",
}

// unsupportedReason returns why Shunt does not support a key of Istio's in a place;
// empty for any other key.
func unsupportedReason(key string, place Place) string {
	if reason, is := unsupportedKeys[key]; is {
		return reason
	}
	if prefix, _, _ := strings.Cut(key, "/"); place != NamespaceAnnotation {
		return unsupportedPrefixes[prefix]
	}
	return ""
}

// rowsByName maps the part of a key after the slash, in lower case, to its rows.
var rowsByName = func() map[string][]*Row {
	rows := map[string][]*Row{}
	for i := range table {
		if _, name, cut := strings.Cut(strings.ToLower(table[i].Key), "/"); cut && table[i].read != nil {
			rows[name] = append(rows[name], &table[i])
		}
	}
	return rows
}()

// otherPrefix returns the key of the table with the same name and a similar prefix:
// one of the same domain, or one of which at most a third differs. It returns
// an empty string if there is none.
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

// begins is how many letters of a key without a prefix have to be right.
const begins = 6

// mostWithoutPrefix is how many of such keys are looked at: a stranger can write
// 10,000 of them.
const mostWithoutPrefix = 100

// rowsByBeginning maps the first letters of the names of rowsByName to them. Short
// names, such as config and port, are words of anybody's.
var rowsByBeginning = func() map[string][]string {
	names := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(rowsByName)) {
		if len(name) > begins+3 {
			names[name[:begins]] = append(names[name[:begins]], name)
		}
	}
	return names
}()

// mayLackPrefix reports whether a key without a prefix begins like the name of one of
// the table.
func mayLackPrefix(key string) bool {
	return len(key) >= begins && len(key) <= longestName && !strings.Contains(key, "/") &&
		rowsByBeginning[strings.ToLower(key[:begins])] != nil
}

// withoutPrefix returns the key of the table that a key without a prefix must mean:
// it begins like its name, and differs by at most a third. It returns an empty string
// if there is none.
func withoutPrefix(key string) string {
	if !mayLackPrefix(key) {
		return ""
	}
	found, least := "", longestName
	for _, name := range rowsByBeginning[strings.ToLower(key[:begins])] {
		if distance := strict.Distance(strings.ToLower(key), name); distance < min(least, len(name)/3+1) {
			found, least = rowsByName[name][0].Key, distance
		}
	}
	return found
}

// RowsByKey maps a key in lower case to its row.
var RowsByKey = func() map[string]*Row {
	rows := make(map[string]*Row, len(table))
	for i := range table {
		rows[strings.ToLower(table[i].Key)] = &table[i]
	}
	return rows
}()

// longestKey is Kubernetes' limit for a key with its prefix, in bytes.
const longestKey = 253 + len("/") + longestName

// rowByKey returns the row of a key, whatever its case.
func rowByKey(key string) (*Row, bool) {
	if len(key) > longestKey {
		return nil, false
	}
	row, known := RowsByKey[strings.ToLower(key)]
	return row, known
}

// misspeltInject returns a problem for InjectKey in the wrong case, which denies the
// pod. Any other unknown key only loses a setting, for which a warning is enough.
// With this one, the pod would run without the proxy that it asks for, or with one
// that it does not want.
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

// AddKeyWarnings adds a warning for each key of the pod, and each annotation of its
// namespace, that looks like one of Shunt's but has no effect.
func AddKeyWarnings(w *strict.Warnings, pod *corev1.Pod, ns Namespace) {
	addKeyWarnings(w, PodAnnotation, pod.Annotations, Paths[PodAnnotation])
	addKeyWarnings(w, PodLabel, pod.Labels, Paths[PodLabel])
	addKeyWarnings(w, NamespaceAnnotation, ns.Annotations, Paths[NamespaceAnnotation])
}

// TemplateWarnings returns the warnings of AddKeyWarnings about the pods of a
// template. The path leads to it.
func TemplateWarnings(template *metav1.ObjectMeta, path *field.Path) []string {
	var w strict.Warnings
	addKeyWarnings(&w, PodAnnotation, template.Annotations, path.Child("metadata", "annotations"))
	addKeyWarnings(&w, PodLabel, template.Labels, path.Child("metadata", "labels"))
	return w.Lines()
}

// NamespaceKeyWarnings returns the warnings of AddKeyWarnings about a namespace,
// with paths within it.
func NamespaceKeyWarnings(ns Namespace) []string {
	var w strict.Warnings
	addKeyWarnings(&w, NamespaceAnnotation, ns.Annotations, field.NewPath("metadata", "annotations"))
	return w.Lines()
}

func addKeyWarnings(w *strict.Warnings, place Place, values map[string]string, path *field.Path) {
	var wrong, bare []string
	for key := range values {
		switch {
		case !understood(key, place):
			wrong = append(wrong, key)
		case mayLackPrefix(key):
			bare = append(bare, key)
		}
	}
	slices.Sort(bare)
	for _, key := range bare[:min(len(bare), mostWithoutPrefix)] {
		if withoutPrefix(key) != "" {
			wrong = append(wrong, key)
		}
	}
	slices.Sort(wrong)
	reported := min(len(wrong), strict.MostTold)
	for _, key := range wrong[:reported] {
		w.Add(fmt.Sprintf("%s: %s", path.Key(strict.Shorten(key)), notUnderstood(key, place)))
	}
	w.Count(len(wrong) - reported)
}

// understood reports whether a key needs no warning: it is read in the place, or it
// is not for an injector.
func understood(key string, place Place) bool {
	row, known := rowByKey(key)
	switch {
	case !known:
		return unsupportedReason(key, place) == "" && otherPrefix(key) == "" &&
			!slices.ContainsFunc(ownPrefixes, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
	case place != NamespaceAnnotation && (row.Key == NamespaceInjectionKey || row.Key == InjectKey):
		return true // the first is never a pod's, the second denies the pod instead
	case key == RevisionKey && place == PodAnnotation:
		return true // Istio records the revision that injected the pod
	default:
		return row.Key == key && slices.Contains(row.Places, place)
	}
}

// notUnderstood returns the text of the warning: why a key has no effect, and which
// key may be meant.
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
	if near := cmp.Or(otherPrefix(key), withoutPrefix(key), nearest(key)); near != "" {
		return fmt.Sprintf("unknown key, on which Shunt does not act; did you mean %s?", near)
	}
	return "unknown key, on which Shunt does not act"
}

// longestName is Kubernetes' limit for the part of a key after the slash, in bytes.
const longestName = 63

// nearest returns the key of the table whose name, the part after the slash, is most
// similar, whatever its case. It returns an empty string if more than a third of
// each name differs. The prefix only decides between equally similar names, because
// it is often all that is wrong with a key.
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
		distance := strict.Distance(name, rowName)
		if distance < least || (distance == least && found != "" && rowPrefix == prefix) {
			found, least = row.Key, distance
		}
	}
	return found
}
