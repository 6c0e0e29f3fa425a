package inject

import corev1 "k8s.io/api/core/v1"

// Restore returns the pod as it was before it was injected: less all that its
// status records. It is not ok for a pod without a status that a Shunt of this
// version wrote, of which nothing says what was put in. The pod is not changed.
//
// What a pod had of empty lists and maps cannot be told from their absence,
// nor can Kubernetes: they are absent afterwards.
func Restore(pod *corev1.Pod) (restored *corev1.Pod, ok bool) {
	if _, ok := ReadStatus(pod); !ok {
		return nil, false
	}
	restored = withoutOurs(pod, nil)
	if len(restored.Annotations) == 0 {
		restored.Annotations = nil
	}
	return restored, true
}
