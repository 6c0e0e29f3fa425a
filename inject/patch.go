package inject

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// Operation is a step of a JSON patch (RFC 6902).
type Operation struct {
	Op    string          `json:"op"`              // add or remove
	Path  string          `json:"path"`            // a JSON pointer (RFC 6901)
	Value json.RawMessage `json:"value,omitempty"` // of an add
}

// Patch returns the operations that make of a pod's JSON what Apply makes of
// the pod, which has to be the one that the plan was made for. It is built from
// the plan: how many operations there are, and how long, depends on what is put
// in, on the pod's tcpSocket probes, and on nothing else that the pod has. What
// this version of the Go types does not know of a pod stays as it is.
func (p Plan) Patch(pod *corev1.Pod) []Operation {
	base := p.base
	ops := append(p.annotate(pod, base), p.patchProbes(pod, base)...)
	ops = append(ops, list{
		path: "/spec/initContainers",
		had:  names(pod.Spec.InitContainers, containerName), kept: names(base.Spec.InitContainers, containerName),
		front: encodeEach(p.InitContainers),
	}.operations()...)
	ops = append(ops, list{
		path: "/spec/containers",
		had:  names(pod.Spec.Containers, containerName), kept: names(base.Spec.Containers, containerName),
		front: encodeEach(p.Containers),
	}.operations()...)
	ops = append(ops, list{
		path: "/spec/volumes",
		had:  names(pod.Spec.Volumes, volumeName), kept: names(base.Spec.Volumes, volumeName),
		back: encodeEach(p.Volumes),
	}.operations()...)
	ops = append(ops, p.patchPullSecrets(pod, base)...)
	ops = append(ops, p.patchResources(pod, base)...)
	return append(ops, p.patchSysctls(pod, base)...)
}

// patchSysctls does what setSysctls and unsetSysctls do.
func (p Plan) patchSysctls(pod, base *corev1.Pod) []Operation {
	const path = "/spec/securityContext"
	had, kept := pod.Spec.SecurityContext, base.Spec.SecurityContext
	switch {
	case had == nil && len(p.Sysctls) == 0:
		return nil
	case had == nil:
		return []Operation{add(path, encode(map[string]any{"sysctls": p.Sysctls}))}
	case kept == nil && len(p.Sysctls) == 0:
		return []Operation{{Op: "remove", Path: path}}
	case kept == nil:
		kept = &corev1.PodSecurityContext{}
	}
	return list{
		path: path + "/sysctls",
		had:  names(had.Sysctls, sysctlName), kept: names(kept.Sysctls, sysctlName), back: encodeEach(p.Sysctls),
	}.operations()
}

// list is what becomes of a list of named elements.
type list struct {
	path        string
	had, kept   []string // names: of all elements, and in the same order of those that stay
	front, back []json.RawMessage
}

func (l list) operations() []Operation {
	if len(l.kept) == 0 {
		all := slices.Concat(l.front, l.back)
		switch {
		case len(all) > 0: // in the place of a list, an empty one or none
			return []Operation{add(l.path, array(all))}
		case len(l.had) > 0:
			return []Operation{{Op: "remove", Path: l.path}}
		}
		return nil
	}
	var ops []Operation
	left := len(l.kept)
	for i, name := range slices.Backward(l.had) {
		if left > 0 && l.kept[left-1] == name {
			left--
			continue
		}
		ops = append(ops, Operation{Op: "remove", Path: l.path + "/" + strconv.Itoa(i)})
	}
	for i, value := range l.front {
		ops = append(ops, add(l.path+"/"+strconv.Itoa(i), value))
	}
	for _, value := range l.back {
		ops = append(ops, add(l.path+"/-", value))
	}
	return ops
}

func containerName(c *corev1.Container) string { return c.Name }
func volumeName(v *corev1.Volume) string       { return v.Name }
func sysctlName(s *corev1.Sysctl) string       { return s.Name }

func names[T any](elements []T, name func(*T) string) []string {
	all := make([]string, len(elements))
	for i := range elements {
		all[i] = name(&elements[i])
	}
	return all
}

func add(path string, value json.RawMessage) Operation {
	return Operation{Op: "add", Path: path, Value: value}
}

func encodeEach[T any](values []T) []json.RawMessage {
	all := make([]json.RawMessage, len(values))
	for i := range values {
		all[i] = encode(&values[i])
	}
	return all
}

func encode(value any) json.RawMessage {
	text, err := json.Marshal(value)
	if err != nil {
		panic("the core API's types always marshal: " + err.Error())
	}
	return text
}

func array(values []json.RawMessage) json.RawMessage {
	all := json.RawMessage{'['}
	for i, value := range values {
		if i > 0 {
			all = append(all, ',')
		}
		all = append(all, value...)
	}
	return append(all, ']')
}

// EncodePatch prints operations as an AdmissionReview carries them. Their
// values are JSON already and not looked at again, as json.Marshal would.
func EncodePatch(ops []Operation) []byte {
	const around = 64 // the keys, quotation marks and brackets of an operation, generously
	size := 2
	for _, op := range ops {
		size += len(op.Path) + len(op.Value) + around
	}
	text := append(make([]byte, 0, size), '[')
	for i, op := range ops {
		if i > 0 {
			text = append(text, ',')
		}
		text = fmt.Appendf(text, `{"op":%s,"path":%s`, encode(op.Op), encode(op.Path))
		if op.Value != nil {
			text = append(append(text, `,"value":`...), op.Value...)
		}
		text = append(text, '}')
	}
	return append(text, ']')
}
