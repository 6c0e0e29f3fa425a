package cases

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Small is a pod with one container: what is measured of most.
func Small() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "echo-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
}

// Large is a pod with 50 containers, 1,500 variables between them, and 300
// volumes: what an injection costs must not grow with it.
func Large() *corev1.Pod {
	pod := Small()
	pod.Spec.Containers = nil
	for i := range 50 {
		app := corev1.Container{Name: fmt.Sprintf("app%d", i), Image: "app"}
		for j := range 30 {
			app.Env = append(app.Env, corev1.EnvVar{Name: fmt.Sprintf("V%d_%d", i, j), Value: "value"})
		}
		pod.Spec.Containers = append(pod.Spec.Containers, app)
	}
	for i := range 300 {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: fmt.Sprintf("volume%d", i)})
	}
	return pod
}
