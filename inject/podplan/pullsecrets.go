package podplan

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
)

// PullSecrets is the unit of the Secrets for pulling our images.
type PullSecrets []corev1.LocalObjectReference

// NewPullSecrets plans the configured ones that the pod does not have.
func NewPullSecrets(pod *corev1.Pod, configured []corev1.LocalObjectReference) PullSecrets {
	var added PullSecrets
	for _, secret := range configured {
		if !slices.Contains(pod.Spec.ImagePullSecrets, secret) {
			added = append(added, secret)
		}
	}
	return added
}

const pullSecretsPath = "/spec/imagePullSecrets"

func secretName(s *corev1.LocalObjectReference) string { return s.Name }

func (p *PullSecrets) apply(edit *Edit) {
	extend(edit, pullSecretsPath, &edit.pod.Spec.ImagePullSecrets, *p)
}

func (p *PullSecrets) record(status *Status) { status.ImagePullSecrets = namesOf(*p, secretName) }

func (*PullSecrets) undo(edit *Edit, status Status) {
	recorded := sets.New(status.ImagePullSecrets...)
	drop(edit, pullSecretsPath, &edit.pod.Spec.ImagePullSecrets, func(s *corev1.LocalObjectReference) bool {
		return recorded.Has(s.Name)
	})
}

func (p *PullSecrets) compare(pod *corev1.Pod) (same bool, changed []string) {
	actual := pod.Spec.ImagePullSecrets
	return containsEach(actual, *p), missing("pull secret", namesOf(*p, secretName), namesOf(actual, secretName))
}
