package manifest

import (
	"encoding/json"
	"errors"
	"fmt"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/webhook/patch"
)

// Injector injects documents.
type Injector struct {
	Config inject.Config
	// Namespace is that of objects that name none.
	Namespace string
	// Namespaces are those that are known.
	Namespaces Namespaces
}

// Outcome is what became of a document.
type Outcome struct {
	Document Document // injected, or as it was
	Notes    []string // for the user, one line each: what was not injected and why, and warnings
}

// Inject injects every workload of the document. The error joins one for
// every field of every object that is wrong.
//
// Whoever runs this asks for injection, so it takes no label of a namespace
// for that; what a pod itself says, and reasons why it cannot be injected,
// count as they do in a cluster.
func (in Injector) Inject(doc Document) (Outcome, error) {
	return change(doc, in.Namespace, "put the proxy in", in.template)
}

// change asks for the operations on each workload's template, and carries them
// out on the document unless anything is wrong. What says in words what they do.
func change(
	doc Document, namespace, what string, plan func(Workload) ([]jsonpatch.Operation, []string, error),
) (Outcome, error) {
	workloads, err := doc.Workloads(namespace)
	outcome, errs := Outcome{Document: doc}, []error{err}
	var operations []jsonpatch.Operation
	for _, w := range workloads {
		ops, notes, err := plan(w)
		for _, note := range notes {
			outcome.Notes = append(outcome.Notes, w.Place()+": "+note)
		}
		for i := range ops {
			ops[i].Path = w.pointer() + ops[i].Path
		}
		operations, errs = append(operations, ops...), append(errs, err)
	}
	if err := errors.Join(errs...); err != nil || len(operations) == 0 {
		return outcome, err
	}
	text, err := apply(doc, operations)
	if err != nil {
		return outcome, fmt.Errorf("%s: document %d: %s: %w", doc.File, doc.Number, what, err)
	}
	outcome.Document = Document{File: doc.File, Number: doc.Number, Text: text}
	return outcome, nil
}

// template decides about one workload. The operations are on its template.
func (in Injector) template(w Workload) (ops []jsonpatch.Operation, notes []string, err error) {
	pod, err := w.pod()
	if err != nil {
		return nil, nil, err
	}
	result := inject.Inject(pod, in.namespace(w), in.Config)
	for _, warning := range result.Warnings {
		notes = append(notes, "warning: "+warning)
	}
	switch {
	case result.Refused():
		return nil, notes, w.refused(result.Decision)
	case !result.Inject:
		return nil, append(notes, fmt.Sprintf("not injected: %s: %s", result.Reason, result.Reason.Sentence())), nil
	}
	ops, err = patch.Diff(w.Template, pod, result.Pod)
	if err != nil {
		return nil, notes, w.wrong(err)
	}
	return ops, notes, nil
}

// namespace is one that asks for injection, as the user does.
func (in Injector) namespace(w Workload) inject.Namespace {
	return in.Namespaces.asking(w.Namespace, in.Config.Revision)
}

// refused joins the errors of a refused pod, with the paths of its object; what
// is its namespace's has a path from there.
func (w Workload) refused(decision inject.Decision) error {
	var all []error
	for _, problem := range decision.Errors {
		if !inject.OfNamespace(problem.Field) {
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
	// The standard library's error says which field it is.
	if standard := json.Unmarshal(w.Template, &corev1.Pod{}); standard != nil {
		err = standard
	}
	return nil, w.wrongType(err, w.field())
}
