package webhook

import (
	"bytes"
	"reflect"
	"runtime"

	corev1 "k8s.io/api/core/v1"
)

// workMemory bounds the memory of the decoded pods that are worked on at once. A
// pod that needs more is rejected: `{},` is three bytes, and a container made of it
// hundreds of times as many.
const workMemory = 48 << 20

// What a JSON value takes in Go, roughly: a list grows by half when it is full.
const (
	elementWeight = 24  // a string of a list, or an entry of a map
	objectWeight  = 112 // most structs of a pod
)

// listWeights are for lists whose elements take more. The pod without our
// containers is a copy that shares everything but the containers' structs.
var listWeights = map[string]int64{
	"containers":          2 * sizeOf[corev1.Container](),
	"initContainers":      2 * sizeOf[corev1.Container](),
	"ephemeralContainers": 2 * sizeOf[corev1.EphemeralContainer](),
	"volumes":             2 * sizeOf[corev1.Volume](),
}

func sizeOf[T any]() int64 { return int64(reflect.TypeFor[T]().Size()) }

// weigh estimates the memory of JSON that is decoded as a pod.
func weigh(text []byte) int64 {
	weight := int64(len(text))
	var lists []int64 // the weight of an object in each list or object that is open
	var last []byte   // the last string: the key of the list that begins
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
	if bytes.IndexByte(key, '\\') >= 0 { // it may be any key
		return listWeights["containers"]
	}
	if weight, heavy := listWeights[string(key)]; heavy {
		return weight
	}
	return objectWeight
}

// stringLength returns the length of the string at the beginning of a text, as
// written.
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

// turn returns an answer's part of workMemory: at least as much that only as many
// fit as there are processors.
func turn(weight int64) int64 {
	return min(max(weight, workMemory/int64(runtime.GOMAXPROCS(0))), workMemory)
}
