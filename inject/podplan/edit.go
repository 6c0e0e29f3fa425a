package podplan

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Operation is a step of a JSON patch (RFC 6902).
type Operation struct {
	Op    string // add, remove or replace
	Path  string // a JSON pointer (RFC 6901)
	Value any    // of an add or replace; it marshals as JSON
}

// EncodePatch returns operations as an AdmissionReview carries them.
func EncodePatch(operations []Operation) []byte {
	text := []byte{'['}
	for i, operation := range operations {
		if i > 0 {
			text = append(text, ',')
		}
		text = fmt.Appendf(text, `{"op":%q,"path":%s`, operation.Op, encode(operation.Path))
		if operation.Op != "remove" {
			text = append(append(text, `,"value":`...), encode(operation.Value)...)
		}
		text = append(text, '}')
	}
	return append(text, ']')
}

func encode(value any) json.RawMessage {
	text, err := json.Marshal(value)
	if err != nil {
		panic("the core API's types always marshal: " + err.Error())
	}
	return text
}

// Edit changes a pod, and records each change as an operation on the pod's
// JSON. The pod that flows in is never changed: what an Edit writes to, it
// copies first, and the rest is shared.
//
// How many operations there are, and how long they are, depends on what is
// changed and on nothing else that the pod has. What this version of the Go
// types does not know of a pod stays as it is.
type Edit struct {
	pod        corev1.Pod
	operations []Operation
	// ownAnnotations and ownContainers say that these are copies already.
	ownAnnotations, ownContainers bool
	// ownVolumes are the names of volumes that are the injector's by its
	// configuration or by the pod's annotations.
	ownVolumes map[string]bool
}

// Pod returns the pod with the changes. It shares memory with the pod that
// flowed in and with the plan, and is not to be changed.
func (e *Edit) Pod() *corev1.Pod { return &e.pod }

// Operations returns what has been changed since NewEdit, step by step.
func (e *Edit) Operations() []Operation { return e.operations }

func (e *Edit) add(path string, value any) {
	e.operations = append(e.operations, Operation{Op: "add", Path: path, Value: value})
}

// replace is for what the pod has.
func (e *Edit) replace(path string, value any) {
	e.operations = append(e.operations, Operation{Op: "replace", Path: path, Value: value})
}

func (e *Edit) remove(path string) {
	e.operations = append(e.operations, Operation{Op: "remove", Path: path})
}

// prepend puts elements at the beginning of a list of the pod's.
func prepend[T any](e *Edit, path string, list *[]T, added []T) {
	switch {
	case len(added) == 0:
		return
	case len(*list) == 0: // there is none, null or an empty one
		e.add(path, added)
	default:
		for i := range added {
			e.add(path+"/"+strconv.Itoa(i), &added[i])
		}
	}
	*list = slices.Concat(added, *list)
}

// extend puts elements at the end of a list of the pod's.
func extend[T any](e *Edit, path string, list *[]T, added []T) {
	switch {
	case len(added) == 0:
		return
	case len(*list) == 0:
		e.add(path, added)
	default:
		for i := range added {
			e.add(path+"/-", &added[i])
		}
	}
	*list = slices.Concat(*list, added)
}

// drop takes elements out of a list of the pod's, and the list itself when none
// is left.
func drop[T any](e *Edit, path string, list *[]T, unwanted func(*T) bool) {
	var at []int
	for i := range *list {
		if unwanted(&(*list)[i]) {
			at = append(at, i)
		}
	}
	switch len(at) {
	case 0:
		return
	case len(*list):
		e.remove(path)
		*list = nil
		return
	}
	kept := make([]T, 0, len(*list)-len(at))
	for i := range *list {
		if !unwanted(&(*list)[i]) {
			kept = append(kept, (*list)[i])
		}
	}
	*list = kept
	e.operations = slices.Grow(e.operations, len(at))
	for _, i := range slices.Backward(at) {
		e.remove(path + "/" + strconv.Itoa(i))
	}
}

// copyContainers has the pod's containers be ones that may be written to.
func (e *Edit) copyContainers() {
	if !e.ownContainers {
		e.pod.Spec.InitContainers = slices.Clone(e.pod.Spec.InitContainers)
		e.pod.Spec.Containers = slices.Clone(e.pod.Spec.Containers)
		e.ownContainers = true
	}
}

const annotationsPath = "/metadata/annotations"

// annotate sets annotations. A template may have no metadata at all.
func (e *Edit) annotate(values map[string]string) {
	switch {
	case len(e.pod.Annotations) > 0:
		for _, key := range slices.Sorted(maps.Keys(values)) {
			if _, present := e.pod.Annotations[key]; present {
				e.replace(annotationPath(key), values[key])
			} else {
				e.add(annotationPath(key), values[key])
			}
		}
	case equality.Semantic.DeepEqual(e.pod.ObjectMeta, metav1.ObjectMeta{Annotations: e.pod.Annotations}):
		e.add("/metadata", map[string]any{"annotations": values})
	default:
		e.add(annotationsPath, values)
	}
	e.copyAnnotations()
	maps.Copy(e.pod.Annotations, values)
}

// unannotate removes annotations that the pod has.
func (e *Edit) unannotate(keys ...string) {
	if len(keys) == 0 {
		return
	}
	if len(keys) == len(e.pod.Annotations) {
		e.remove(annotationsPath)
		e.pod.Annotations = nil
		return
	}
	e.copyAnnotations()
	for _, key := range keys {
		e.remove(annotationPath(key))
		delete(e.pod.Annotations, key)
	}
}

func (e *Edit) copyAnnotations() {
	if !e.ownAnnotations || e.pod.Annotations == nil {
		copied := make(map[string]string, len(e.pod.Annotations)+len(prometheusAnnotations)+1)
		maps.Copy(copied, e.pod.Annotations)
		e.pod.Annotations, e.ownAnnotations = copied, true
	}
}

func annotationPath(key string) string {
	return annotationsPath + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}
