package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shunt-dev/shunt/webhook/patch"
)

// templates says where each kind of workload keeps its pod template.
var templates = map[schema.GroupKind][]string{
	{Kind: "Pod"}:                        {},
	{Group: "apps", Kind: "Deployment"}:  {"spec", "template"},
	{Group: "apps", Kind: "StatefulSet"}: {"spec", "template"},
	{Group: "apps", Kind: "DaemonSet"}:   {"spec", "template"},
	{Group: "apps", Kind: "ReplicaSet"}:  {"spec", "template"},
	{Group: "batch", Kind: "Job"}:        {"spec", "template"},
	{Group: "batch", Kind: "CronJob"}:    {"spec", "jobTemplate", "spec", "template"},
}

const listKind = "List"

// Kinds returns the kinds that are injected, sorted.
func Kinds() []string {
	var kinds []string
	for kind := range templates {
		kinds = append(kinds, kind.Kind)
	}
	slices.Sort(kinds)
	return kinds
}

// Workload is an object with a pod template.
type Workload struct {
	Kind      string
	Namespace string
	Name      string // or generateName

	Template []byte // the pod, or the pod template, as JSON

	doc  Document
	path []string // from the document to the template, as keys of a JSON pointer
	at   int      // how many of them lead to the object
}

// Place says where the object stands and which it is.
func (w Workload) Place() string {
	return fmt.Sprintf("%s: document %d: %s %s/%s", w.doc.File, w.doc.Number, w.Kind, w.Namespace, w.Name)
}

// field is the path of a field of the template within the object, as in
// messages: "spec.template.spec.hostNetwork". Without a field it is the
// template's own.
func (w Workload) field(ofTemplate ...string) string {
	return strings.Join(slices.Concat(w.path[w.at:], ofTemplate), ".")
}

// pointer is the path of the template within the document (RFC 6901).
func (w Workload) pointer() string {
	path := ""
	for _, key := range w.path {
		path = patch.Join(path, key)
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

// Workloads finds the workloads of the document, those in Lists too; one that
// names no namespace is in the given one. What is not a Kubernetes object is
// no workload. With the workloads that can be read comes an error that joins
// one for every other.
func (d Document) Workloads(namespace string) ([]Workload, error) {
	if !d.mayHoldWorkloads() {
		return nil, nil
	}
	text, err := d.strictJSON()
	if err != nil {
		return nil, err
	}
	f := finder{doc: d, namespace: namespace}
	f.find(text, nil)
	return f.found, errors.Join(f.errs...)
}

// mayHoldWorkloads looks at the kind alone, so that a document of another kind
// need not be one that Kubernetes' strict reader takes.
func (d Document) mayHoldWorkloads() bool {
	var head struct {
		Kind any `yaml:"kind"`
	}
	if d.empty {
		return false
	}
	node, err := d.node()
	if err != nil || node.Decode(&head) != nil {
		return true // strictJSON says what is wrong
	}
	kind, _ := head.Kind.(string)
	return kind == listKind || slices.Contains(Kinds(), kind)
}

// finder collects what one document holds.
type finder struct {
	doc       Document
	namespace string
	found     []Workload
	errs      []error
}

// find looks at an object, to which the path leads.
func (f *finder) find(object []byte, path []string) {
	var kind metav1.TypeMeta
	if err := json.Unmarshal(object, &kind); err != nil {
		return
	}
	keys, wanted := templates[kind.GroupVersionKind().GroupKind()]
	isList := kind.Kind == listKind && kind.APIVersion == "v1"
	if !wanted && !isList {
		return
	}
	w := Workload{Kind: kind.Kind, Namespace: f.namespace, at: len(path), path: append(slices.Clone(path), keys...), doc: f.doc}
	var head header
	if err := json.Unmarshal(object, &head); err != nil {
		f.errs = append(f.errs, w.wrongType(err, ""))
		return
	}
	for i, item := range head.Items {
		f.find(item, append(slices.Clone(path), "items", strconv.Itoa(i)))
	}
	if !wanted {
		return
	}
	w.Name = head.Metadata.Name + head.Metadata.GenerateName
	if head.Metadata.Namespace != "" {
		w.Namespace = head.Metadata.Namespace
	}
	var err error
	if w.Template, err = descend(object, keys); err != nil {
		f.errs = append(f.errs, w.wrong(err))
		return
	}
	f.found = append(f.found, w)
}

// wrong says where the workload stands that an error is about.
func (w Workload) wrong(err error) error { return fmt.Errorf("%s: %w", w.Place(), err) }

// wrongType names the field for which JSON could not be decoded; its path is
// behind the given one.
func (w Workload) wrongType(err error, field string) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return w.wrong(err)
	}
	return w.wrong(fmt.Errorf("%s: Invalid value: a %s; accepted: %s",
		strings.TrimPrefix(field+"."+wrong.Field, "."), wrong.Value, wrong.Type))
}

// descend returns the object that the keys lead to.
func descend(object []byte, keys []string) ([]byte, error) {
	for i, key := range keys {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(object, &fields); err != nil || fields[key] == nil || string(fields[key]) == "null" {
			return nil, fmt.Errorf("%s: Required value: accepted: a pod template", strings.Join(keys[:i+1], "."))
		}
		object = fields[key]
	}
	return object, nil
}
