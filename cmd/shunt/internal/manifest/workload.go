package manifest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/podplan"
)

var underTemplate = []string{"spec", "template"}

// templates says where each of Kubernetes' own kinds keeps its pod template, in
// the groups of today and those that it was in before.
var templates = map[schema.GroupKind][]string{
	{Kind: "Pod"}:                             {},
	{Kind: "ReplicationController"}:           underTemplate,
	{Group: "apps", Kind: "Deployment"}:       underTemplate,
	{Group: "apps", Kind: "StatefulSet"}:      underTemplate,
	{Group: "apps", Kind: "DaemonSet"}:        underTemplate,
	{Group: "apps", Kind: "ReplicaSet"}:       underTemplate,
	{Group: "extensions", Kind: "Deployment"}: underTemplate,
	{Group: "extensions", Kind: "DaemonSet"}:  underTemplate,
	{Group: "extensions", Kind: "ReplicaSet"}: underTemplate,
	{Group: "batch", Kind: "Job"}:             underTemplate,
	{Group: "batch", Kind: "CronJob"}:         {"spec", "jobTemplate", "spec", "template"},
}

// listSuffix ends the kinds of lists: List itself, whose items say what they
// are, and those such as PodList, whose items need not.
const listSuffix = "List"

// Kinds returns Kubernetes' own kinds that are injected, sorted.
func Kinds() []string {
	var kinds []string
	for kind := range templates {
		kinds = append(kinds, kind.Kind)
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}

// Workload is an object with a pod template.
type Workload struct {
	Kind      string
	Namespace string
	Name      string // or generateName

	Template []byte // the pod, or the pod template, as JSON; nil where the object has none

	object  []byte // as JSON
	doc     Document
	path    []string // from the document to the template, as keys of a JSON pointer
	at      int      // how many of them lead to the object
	foreign bool     // not one of Kubernetes' own kinds
}

// Place says where the object stands and which it is.
func (w Workload) Place() string {
	return fmt.Sprintf("%s: document %d: %s", w.doc.File, w.doc.Number, w.name())
}

func (w Workload) name() string { return fmt.Sprintf("%s %s/%s", w.Kind, w.Namespace, w.Name) }

// field is the path of a field of the template within the object, as in
// messages: "spec.template.spec.hostNetwork". Without a field it is the
// template's own.
func (w Workload) field(ofTemplate ...string) string {
	return strings.Join(slices.Concat(w.path[w.at:], ofTemplate), ".")
}

// templatePath is field as a path; nil of a Pod.
func (w Workload) templatePath() *field.Path { return fieldPath(w.path[w.at:]) }

// pointer is the path of the template within the document (RFC 6901).
func (w Workload) pointer() string {
	path := ""
	for _, key := range w.path {
		path = podplan.JoinPointer(path, key)
	}
	return path
}

// header is what is read of all objects.
type header struct {
	Metadata struct {
		Name         string `json:"name"`
		GenerateName string `json:"generateName"`
		Namespace    string `json:"namespace"`
	} `json:"metadata"`
	Items []json.RawMessage `json:"items"`
}

// Workloads finds the workloads of the document, those in lists too; one that
// names no namespace is in the given one. What is not a Kubernetes object is
// no workload, and of kinds that are not Kubernetes' own those are that have
// containers under spec.template. With the workloads that can be read comes an
// error that joins one for every other.
func (d Document) Workloads(namespace string) ([]Workload, error) {
	if !d.mayHoldWorkloads() {
		return nil, nil
	}
	text, err := d.JSON()
	if err != nil {
		return nil, err
	}
	f := finder{doc: d, namespace: namespace}
	f.find(text, nil, metav1.TypeMeta{})
	return f.found, errors.Join(f.errs...)
}

// mayHoldWorkloads looks at the YAML, so that a document without a workload need
// not be one that can be JSON.
func (d *Document) mayHoldWorkloads() bool {
	if d.empty || d.wrong != nil {
		return d.wrong != nil // Workloads says what it is
	}
	kind, _ := d.descendTo([]string{"kind"})
	if kind == nil || kind.Kind != yaml.ScalarNode {
		return false
	}
	if strings.HasSuffix(kind.Value, listSuffix) || slices.Contains(Kinds(), kind.Value) {
		return true
	}
	containers, _ := d.descendTo(append(slices.Clone(underTemplate), "spec", "containers"))
	return containers != nil
}

// finder collects what one document holds.
type finder struct {
	doc       Document
	namespace string
	found     []Workload
	errs      []error
}

// find looks at an object, to which the path leads. What it does not say of its
// kind, the list says that it is in.
func (f *finder) find(object []byte, path []string, kind metav1.TypeMeta) {
	if err := json.Unmarshal(object, &kind); err != nil {
		return
	}
	keys, own := templates[kind.GroupVersionKind().GroupKind()]
	item, isList := strings.CutSuffix(kind.Kind, listSuffix)
	if !own {
		keys = underTemplate
	}
	w := Workload{
		Kind: kind.Kind, Namespace: f.namespace, doc: f.doc, object: object, foreign: !own,
		at: len(path), path: append(slices.Clone(path), keys...),
	}
	w.Template = descend(object, keys)
	if !isList && !own && w.bare() {
		return
	}
	var head header
	if err := json.Unmarshal(object, &head); err != nil {
		f.errs = append(f.errs, w.wrongType(err, object, reflect.TypeFor[header](), nil))
		return
	}
	if isList && !own {
		of := metav1.TypeMeta{APIVersion: kind.APIVersion, Kind: item}
		for i, item := range head.Items {
			f.find(item, append(slices.Clone(path), "items", strconv.Itoa(i)), of)
		}
		return
	}
	w.Name = cmp.Or(head.Metadata.Name, head.Metadata.GenerateName)
	if head.Metadata.Namespace != "" {
		w.Namespace = head.Metadata.Namespace
	}
	f.found = append(f.found, w)
}

// bare reports whether the workload has no containers.
func (w Workload) bare() bool {
	var template struct {
		Spec struct {
			Containers json.RawMessage `json:"containers"`
		} `json:"spec"`
	}
	if w.Template == nil {
		return true
	}
	if err := json.Unmarshal(w.Template, &template); err != nil {
		return false // and is told when it is read as a pod
	}
	return slices.Contains([]string{"", "null", "[]"}, string(template.Spec.Containers))
}

// wrong says where the workload stands that an error is about; of a fault of a
// field, which line of the file that is.
func (w Workload) wrong(err error) error {
	var fault *field.Error
	if !errors.As(err, &fault) || annotation.OfNamespace(fault.Field) {
		return fmt.Errorf("%s: %w", w.Place(), err)
	}
	return fmt.Errorf("%s: document %d: line %d: %s: %w", w.doc.File, w.doc.Number, w.line(fault), w.name(), err)
}

// line is that of the file where a field of the object is, or what of its path
// is there.
func (w Workload) line(fault *field.Error) int {
	_, line := w.doc.descendTo(slices.Concat(w.path[:w.at], fieldKeys(fault.Field)))
	return line
}

// wrongType says what of an object, or of the part that the path leads to, is
// of another type than it should be. The error is the decoder's, whose words are
// Go's.
func (w Workload) wrongType(err error, text []byte, of reflect.Type, path *field.Path) error {
	var found mistyped
	found.explain(text, of, path)
	if len(found.told) == 0 {
		return w.wrong(err)
	}
	return found.errors(w)
}

// descend returns the object that the keys lead to; nil where there is none.
func descend(object []byte, keys []string) []byte {
	for _, key := range keys {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(object, &fields); err != nil || fields[key] == nil || string(fields[key]) == "null" {
			return nil
		}
		object = fields[key]
	}
	return object
}
