package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// checkPullSecrets holds that the names are ones that Secrets can have.
func checkPullSecrets(path *field.Path, secrets []corev1.LocalObjectReference) field.ErrorList {
	var errs field.ErrorList
	for i, secret := range secrets {
		name := path.Index(i).Child("name")
		for _, wrong := range validation.IsDNS1123Subdomain(secret.Name) {
			errs = append(errs, field.Invalid(name, secret.Name, "accepted: "+wrong))
		}
		if slices.Contains(secrets[:i], secret) {
			errs = append(errs, field.Duplicate(name, secret.Name))
		}
	}
	return errs
}

// addedPullSecrets are those of the configuration that a pod has not itself.
func addedPullSecrets(pod *corev1.Pod, cfg Config) []corev1.LocalObjectReference {
	var added []corev1.LocalObjectReference
	for _, secret := range cfg.ImagePullSecrets {
		if !slices.Contains(pod.Spec.ImagePullSecrets, secret) {
			added = append(added, secret)
		}
	}
	return added
}

// dropPullSecrets takes those that a status records out of a pod.
func dropPullSecrets(pod *corev1.Pod, recorded []string) {
	if len(recorded) == 0 {
		return
	}
	known := setOf(recorded)
	pod.Spec.ImagePullSecrets = slices.DeleteFunc(pod.Spec.ImagePullSecrets, func(s corev1.LocalObjectReference) bool {
		return known[s.Name]
	})
	if len(pod.Spec.ImagePullSecrets) == 0 {
		pod.Spec.ImagePullSecrets = nil
	}
}

// patchPullSecrets returns the operations on the list of a pod's secrets.
func (p Plan) patchPullSecrets(pod, base *corev1.Pod) []Operation {
	return list{
		path: "/spec/imagePullSecrets",
		had:  names(pod.Spec.ImagePullSecrets, secretName), kept: names(base.Spec.ImagePullSecrets, secretName),
		back: encodeEach(p.ImagePullSecrets),
	}.operations()
}

func secretName(s *corev1.LocalObjectReference) string { return s.Name }
