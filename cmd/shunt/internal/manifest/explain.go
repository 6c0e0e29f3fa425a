package manifest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
)

// Explanation is what becomes of one workload's pods, and by which settings.
type Explanation struct {
	File      string        `json:"file"`
	Document  int           `json:"document"`
	Kind      string        `json:"kind"`
	Namespace string        `json:"namespace"`
	Name      string        `json:"name"`
	Reason    inject.Reason `json:"reason"`
	Sentence  string        `json:"sentence"`
	// DecidedBy is the label or rule that decides; empty of an object that is left
	// alone before its pod is looked at.
	DecidedBy string           `json:"decidedBy,omitempty"`
	Settings  []inject.Setting `json:"settings"`

	place string
}

// Place says where the object stands and which it is.
func (e Explanation) Place() string { return e.place }

// Explain says of every workload of the document what a webhook would do, by which
// label or rule, and where the settings come from; given says who set a field of
// the configuration. Unlike in Inject, the labels of a Namespace among the files
// count; one that is not there counts as opted in.
// The notes are warnings.
func (in Injector) Explain(doc Document, given map[string]string) (all []Explanation, notes []string, err error) {
	workloads, err := doc.Workloads(in.Namespace)
	errs := []error{err}
	notes = doc.namespaceNotes()
	if len(workloads) > 0 {
		notes = append(notes, doc.notes()...)
	}
	for _, w := range workloads {
		explanation := Explanation{
			File: doc.File, Document: doc.Number, Kind: w.Kind, Namespace: w.Namespace, Name: w.Name, place: w.Place(),
		}
		for _, warning := range w.misplaced() {
			notes = append(notes, w.Place()+": "+warning)
		}
		if explanation.Reason, explanation.Sentence = w.leftAlone(); explanation.Reason != "" {
			all = append(all, explanation)
			continue
		}
		pod, err := w.pod()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		ns, isGiven := in.Namespaces[w.Namespace]
		if !isGiven {
			ns = in.namespace(w)
		}
		result := inject.Explain(pod, ns, in.Config, given)
		explanation.DecidedBy = inject.NewInjector(in.Config).DecidedBy(pod, ns)
		if !isGiven && strings.HasPrefix(explanation.DecidedBy, string(annotation.NamespaceLabel)) {
			explanation.DecidedBy = fmt.Sprintf("no Namespace %s is among the files, so that it counts as opted in", w.Namespace)
		}
		for _, warning := range result.Warnings {
			notes = append(notes, w.Place()+": warning: "+w.placed(warning))
		}
		if result.Denied() {
			errs = append(errs, w.refused(result.Decision))
			continue
		}
		explanation.Reason, explanation.Sentence, explanation.Settings = result.Reason, result.Reason.Sentence(), result.Settings
		all = append(all, explanation)
	}
	return all, notes, errors.Join(errs...)
}
