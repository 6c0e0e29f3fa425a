package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/strict"
)

// Injector injects documents.
type Injector struct {
	Config config.Config
	// Version is that of the program, which a pod's status records.
	Version string
	// Namespace is that of objects that name none.
	Namespace string
	// Namespaces are those that are known.
	Namespaces Namespaces
}

// Outcome is what became of a document.
type Outcome struct {
	Document Document // injected, or as it was
	Notes    []string // for the user, one line each: what was not injected and why, and warnings
	Tally    Tally
}

// Inject injects every workload of the document. The error joins one for
// every field of every object that is wrong.
//
// Whoever runs this asks for injection, so it takes no label of a namespace
// for that; what a pod itself says, and reasons why it cannot be injected,
// count as they do in a cluster.
func (in Injector) Inject(doc Document) (Outcome, error) {
	outcome, err := change(doc, in.Namespace, "put the proxy in", in.template)
	outcome.Notes = append(doc.namespaceNotes(), outcome.Notes...)
	return outcome, err
}

// changes are what is to be done with one workload.
type changes struct {
	operations []podplan.Operation // on its template
	notes      []string
	reason     inject.Reason // why it is injected or left alone
}

// change asks for the changes of each workload, and carries them out on the
// document unless anything is wrong. What says in words what they do.
func change(doc Document, namespace, what string, plan func(Workload) (changes, error)) (Outcome, error) {
	workloads, err := doc.Workloads(namespace)
	outcome, errs := Outcome{Document: doc}, []error{err}
	if err != nil {
		outcome.Tally.Unread++
	}
	if len(workloads) > 0 {
		outcome.Notes = doc.notes()
	}
	var operations []podplan.Operation
	for _, w := range workloads {
		planned, err := plan(w)
		for _, note := range planned.notes {
			outcome.Notes = append(outcome.Notes, w.Place()+": "+note)
		}
		for i := range planned.operations {
			planned.operations[i].Path = w.pointer() + planned.operations[i].Path
		}
		outcome.Tally.count(planned.reason, err)
		operations, errs = append(operations, planned.operations...), append(errs, err)
	}
	if err := errors.Join(errs...); err != nil || len(operations) == 0 {
		return outcome, err
	}
	text, err := apply(doc, operations)
	if err != nil {
		return outcome, fmt.Errorf("%s: document %d: %s: %w", doc.File, doc.Number, what, err)
	}
	outcome.Document = doc.with(text)
	return outcome, nil
}

// notes warn of keys that are there twice: Kubernetes' own reader takes them.
func (d *Document) notes() []string {
	root, err := d.node()
	if err != nil {
		return nil
	}
	var notes []string
	again := duplicates(root)
	for i, key := range again {
		if i == strict.MostTold {
			notes = append(notes, fmt.Sprintf("%s: document %d: warning: and %d more", d.File, d.Number, len(again)-i))
			break
		}
		notes = append(notes, fmt.Sprintf("%s: document %d: line %d: warning: key %q is there twice; the last one counts, as with kubectl",
			d.File, d.Number, d.above+key.Line, brief(key.Value)))
	}
	return notes
}

// template decides about one workload.
func (in Injector) template(w Workload) (changes, error) {
	if reason, sentence := w.leftAlone(); reason != "" {
		return changes{reason: reason, notes: append(w.misplaced(), fmt.Sprintf("not injected: %s: %s", reason, sentence))}, nil
	}
	pod, err := w.pod()
	if err != nil {
		return changes{}, err
	}
	result := inject.NewInjector(in.Config).OfVersion(in.Version).Inject(pod, in.namespace(w))
	planned := changes{reason: result.Reason, notes: w.misplaced()}
	for _, warning := range result.Warnings {
		planned.notes = append(planned.notes, "warning: "+w.placed(warning))
	}
	switch {
	case result.Denied():
		return planned, w.refused(result.Decision)
	case !result.Inject:
		planned.notes = append(planned.notes, fmt.Sprintf("not injected: %s: %s", result.Reason, result.Reason.Sentence()))
		return planned, nil
	}
	planned.operations = result.Operations
	return planned, nil
}

// Reasons why a workload of a file is left alone, beside those that a pod has.
const (
	reasonPatch     inject.Reason = "Patch"
	reasonOtherKind inject.Reason = "OtherKind"
)

// leftAlone says why a workload is left alone before its pod is looked at.
//
//	no template, or one without containers             -> Patch
//	not a kind of Kubernetes' own, and its template
//	  says neither sidecar.istio.io/inject nor
//	  istio.io/rev                                     -> OtherKind
func (w Workload) leftAlone() (reason inject.Reason, sentence string) {
	if w.bare() {
		return reasonPatch, "it has no containers, as a patch of another manifest"
	}
	if w.foreign && !w.asks() {
		return reasonOtherKind, fmt.Sprintf("this kind is not one of Kubernetes' own, and is injected where its pod template asks "+
			"by the label %s: \"true\"", annotation.InjectKey)
	}
	return "", ""
}

// asks reports whether the template has a key by which pods ask for the proxy or
// decline it.
func (w Workload) asks() bool {
	var template struct {
		Metadata struct {
			Labels      map[string]json.RawMessage `json:"labels"`
			Annotations map[string]json.RawMessage `json:"annotations"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(w.Template, &template); err != nil {
		return false
	}
	labels, annotations := template.Metadata.Labels, template.Metadata.Annotations
	return labels[annotation.InjectKey] != nil || annotations[annotation.InjectKey] != nil || labels[annotation.RevisionKey] != nil
}

// namespace is one that asks for injection, as the user does.
func (in Injector) namespace(w Workload) annotation.Namespace {
	return in.Namespaces.asking(w.Namespace, in.Config.Revision)
}

// refused joins the errors of a refused pod, with the paths of its object; what
// is its namespace's has a path from there.
func (w Workload) refused(decision inject.Decision) error {
	var all []error
	for _, problem := range decision.Errors {
		if !annotation.OfNamespace(problem.Field) {
			problem.Field = w.field(problem.Field)
		}
		all = append(all, w.wrong(problem))
	}
	if more := decision.AndMore(); more != "" {
		all = append(all, w.wrong(errors.New(more)))
	}
	return errors.Join(all...)
}

// pod reads the template as a pod. A field that the type does not know is no
// error: the patch leaves it in place.
func (w Workload) pod() (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	err := utiljson.Unmarshal(w.Template, pod)
	if err == nil {
		return pod, nil
	}
	return nil, w.wrongType(err, w.Template, reflect.TypeFor[corev1.Pod](), w.templatePath())
}
