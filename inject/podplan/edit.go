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
	"k8s.io/apimachinery/pkg/util/sets"
)

// Operation is a step of a JSON patch (RFC 6902).
type Operation struct {
	Op    string // add, remove or replace
	Path  string // a JSON pointer (RFC 6901)
	Value any    // of an add or replace; it marshals as JSON
}

// EncodePatch returns operations as the JSON of an AdmissionReview's patch.
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
// JSON. It never changes the original pod: it copies what it writes to, and
// shares the rest.
//
// The number and size of the operations depend on the changes only, and not on
// the rest of the pod. Fields that this version of the Go types does not know
// stay as they are, except in objects that an operation has whole: spec.resources,
// and metadata or the pod's securityContext without any known field.
type Edit struct {
	pod        corev1.Pod
	operations []Operation
	// ownAnnotations and ownContainers are whether these are copies already.
	ownAnnotations, ownContainers bool
	// ownVolumes are the names of volumes that the configuration or the pod's
	// annotations give to our containers.
	ownVolumes sets.Set[string]
}

// Pod returns the changed pod. It shares memory with the original pod and the
// plan: do not change it.
func (e *Edit) Pod() *corev1.Pod { return &e.pod }

// Operations returns the changes since Undo began the Edit, in order.
func (e *Edit) Operations() []Operation { return e.operations }

func (e *Edit) add(path string, value any) {
	e.operations = append(e.operations, Operation{Op: "add", Path: path, Value: value})
}

// replace records another value for what the pod has.
func (e *Edit) replace(path string, value any) {
	e.operations = append(e.operations, Operation{Op: "replace", Path: path, Value: value})
}

func (e *Edit) remove(path string) {
	e.operations = append(e.operations, Operation{Op: "remove", Path: path})
}

// prepend adds elements at the beginning of a list.
func prepend[T any](e *Edit, path string, list *[]T, added []T) {
	switch {
	case len(added) == 0:
		return
	case len(*list) == 0: // absent, null or empty
		e.add(path, added)
	default:
		for i := range added {
			e.add(path+"/"+strconv.Itoa(i), &added[i])
		}
	}
	*list = slices.Concat(added, *list)
}

// extend adds elements at the end of a list.
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

// drop removes elements from a list, and the list itself if none is left.
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

// copyContainers copies the pod's containers before they are written to.
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

// unannotate removes annotations; the pod must have them.
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

func annotationPath(key string) string { return JoinPointer(annotationsPath, key) }

var escapedKeys = strings.NewReplacer("~", "~0", "/", "~1")

// JoinPointer appends a key to a JSON pointer (RFC 6901).
func JoinPointer(pointer, key string) string { return pointer + "/" + escapedKeys.Replace(key) }
