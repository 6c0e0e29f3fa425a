package webhook

import (
	"bytes"
	"reflect"
	"runtime"

	corev1 "k8s.io/api/core/v1"
)

// workMemory is what the pods that are worked on at once may take together,
// decoded. One that would take more is refused: `{},` is three bytes, and a
// container of it hundreds of times as many.
const workMemory = 48 << 20

// What a value of JSON takes in Go, about: a list grows by half when it is full.
const (
	elementWeight = 24  // a string of a list, or an entry of a map
	objectWeight  = 112 // most structs of a pod
)

// listWeights are those of the lists whose elements take more. The pod that is
// without ours is a copy, in which all but the containers' structs is shared.
var listWeights = map[string]int64{
	"containers":          2 * sizeOf[corev1.Container](),
	"initContainers":      2 * sizeOf[corev1.Container](),
	"ephemeralContainers": 2 * sizeOf[corev1.EphemeralContainer](),
	"volumes":             2 * sizeOf[corev1.Volume](),
}

func sizeOf[T any]() int64 { return int64(reflect.TypeFor[T]().Size()) }

// weigh estimates what JSON takes when it is decoded as a pod.
func weigh(text []byte) int64 {
	weight := int64(len(text))
	var lists []int64 // what an object is in each list or object that is open
	var last []byte   // the last string: the key of a list that begins
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			length := stringLength(text[i+1:])
			last = text[i+1 : i+1+length]
			i += length + 1
		case ',':
			weight += elementWeight
		case '[':
			lists = append(lists, listWeight(last))
		case '{':
			if len(lists) > 0 {
				weight += lists[len(lists)-1]
			}
			lists = append(lists, objectWeight)
		case ']', '}':
			lists = lists[:max(len(lists)-1, 0)]
		}
	}
	return weight
}

func listWeight(key []byte) int64 {
	if bytes.IndexByte(key, '\\') >= 0 { // which may be any
		return listWeights["containers"]
	}
	if weight, heavy := listWeights[string(key)]; heavy {
		return weight
	}
	return objectWeight
}

// stringLength is that of the string that begins a text, as it is written.
func stringLength(text []byte) int {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return len(text)
}

// turn is what of workMemory an answer is worked out with: of as many at once
// as there are processors, however light they are.
func turn(weight int64) int64 {
	return min(max(weight, workMemory/int64(runtime.GOMAXPROCS(0))), workMemory)
}
