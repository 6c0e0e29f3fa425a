package manifest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// Restorer gives injected documents back as they were.
type Restorer struct {
	// Namespace is that of objects that name none; messages have it.
	Namespace string
}

// Restore takes out of every workload of the document what its status records.
// What Shunt did not inject stays as it is, with a note. The error joins one
// for every object that cannot be read.
func (r Restorer) Restore(doc Document) (Outcome, error) {
	return change(doc, r.Namespace, "take the proxy out", restore)
}

// restore is Restore for one workload.
func restore(w Workload) (changes, error) {
	if w.Template == nil {
		return changes{notes: []string{"left as it is: it has no pod template"}}, nil
	}
	pod, err := w.pod()
	if err != nil {
		return changes{}, err
	}
	restored, ok := inject.Restore(pod)
	if !ok {
		return changes{notes: []string{"left as it is: " + whyNot(pod)}}, nil
	}
	var planned changes
	if missing := missing(pod); len(missing) > 0 {
		planned.notes = []string{fmt.Sprintf("warning: %s records what is not there: %s",
			podplan.StatusKey, strings.Join(missing, ", "))}
	}
	planned.operations = dropEmpty(w.Template, restored.Operations())
	return planned, nil
}

// whyNot says why a pod without a status of ours is not restored.
func whyNot(pod *corev1.Pod) string {
	ours := []string{podplan.InitContainerName, podplan.ProxyContainerName}
	text, present := pod.Annotations[podplan.StatusKey]
	switch {
	case present && text != "":
		return "its " + podplan.StatusKey + " is not one that this version of Shunt writes, but another injector's"
	case slices.ContainsFunc(containerNames(pod), func(name string) bool { return slices.Contains(ours, name) }):
		return "it has a container of Shunt's, but no " + podplan.StatusKey + " that says what was put in"
	default:
		return "it is not injected"
	}
}

// missing are the containers that a pod's status records and that it has not.
func missing(pod *corev1.Pod) []string {
	status, _ := podplan.ReadStatus(pod)
	there := containerNames(pod)
	return slices.DeleteFunc(slices.Concat(status.InitContainers, status.Containers), func(name string) bool {
		return slices.Contains(there, name)
	})
}

func containerNames(pod *corev1.Pod) []string {
	var names []string
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		names = append(names, c.Name)
	}
	return names
}

// dropEmpty takes a template's metadata away with the annotations, where that
// is all it has: injection may have put both there.
func dropEmpty(template []byte, ops []podplan.Operation) []podplan.Operation {
	var fields struct {
		Metadata map[string]json.RawMessage `json:"metadata"`
	}
	if err := utiljson.Unmarshal(template, &fields); err != nil || len(fields.Metadata) != 1 {
		return ops
	}
	for i, op := range ops {
		if op.Op == "remove" && op.Path == "/metadata/annotations" {
			ops[i].Path = "/metadata"
		}
	}
	return ops
}
