package podplan

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/strict"
)

// Plan is all that one pod gets.
type Plan struct {
	Mode interception.Mode
	// Spec and Options are what shunt-init is told. Spec is zero in mode NONE,
	// in which shunt-init only leaves the proxy its files.
	Spec    interception.Spec
	Options interception.Options
	// Guaranteed reports whether the pod has the quality of service Guaranteed
	// and keeps it, because our containers request just what they may have.
	Guaranteed bool

	Containers  Containers
	Volumes     Volumes
	Probes      Probes
	Sysctls     Sysctls
	PullSecrets PullSecrets
	Resources   Resources
	Annotations Annotations

	// Status is what the units record; Record makes it.
	Status Status
}

// unit is one thing that an injection changes in a pod.
type unit interface {
	// apply puts the unit into a pod from which undo took an earlier one.
	apply(edit *Edit)
	// record notes in the status what undo needs.
	record(status *Status)
	// undo takes out what the status records. It goes by that alone, and not by
	// its receiver: the pod may have been injected with other settings.
	undo(edit *Edit, status Status)
	// compare reports whether the pod has the unit as planned. Changed words
	// what somebody took out or changed after the injection.
	compare(pod *corev1.Pod) (same bool, changed []string)
}

func (p *Plan) units() []unit {
	return []unit{&p.Containers, &p.Probes, &p.Volumes, &p.PullSecrets, &p.Resources, &p.Sysctls, &p.Annotations}
}

// Undo begins an Edit of a pod by taking out what an earlier injection put in,
// as the pod's status records it. It is not ok for a pod without a status that
// an injector of this version wrote; the Edit then begins with the pod as it
// is. Volumes are the names of those that are the injector's besides Shunt's
// own.
func Undo(pod *corev1.Pod, volumes []string) (edit *Edit, ok bool) {
	edit = &Edit{pod: *pod}
	status, ok := ReadStatus(pod)
	if !ok {
		return edit, false
	}
	edit.ownVolumes = setOf(volumes)
	var plan Plan
	for _, unit := range plan.units() {
		unit.undo(edit, status)
	}
	return edit, true
}

// Record makes the Status. The plan is complete then, and is not to be changed.
func (p *Plan) Record(revision string) {
	p.Status = Status{Revision: revision, Version: statusVersion}
	for _, unit := range p.units() {
		unit.record(&p.Status)
	}
	p.Annotations.status = p.Status.String()
}

// Apply puts the plan into a pod, from which Undo has taken an earlier one.
func (p *Plan) Apply(edit *Edit) {
	for _, unit := range p.units() {
		unit.apply(edit)
	}
}

// AppliedTo reports whether a pod has what the plan would put in, where it
// would put it, just as it would. What API servers and well-known webhooks set
// does not count; same.go has the list.
//
// Changed is a warning for the pod's owner, where the pod's status records just
// what the plan has and the pod has something else: somebody changed it after
// the injection. It is empty for a pod whose status says something else: the
// pod was injected with other settings, which is no news.
func (p *Plan) AppliedTo(pod *corev1.Pod) (applied bool, changed string) {
	status, ok := ReadStatus(pod)
	if !ok || !equality.Semantic.DeepEqual(status, p.Status) {
		return false, ""
	}
	applied = true
	var found []string
	for _, unit := range p.units() {
		same, changed := unit.compare(pod)
		applied, found = applied && same, append(found, changed...)
	}
	if len(found) == 0 {
		return applied, ""
	}
	if more := len(found) - strict.MostTold; more > 0 {
		found = append(found[:strict.MostTold], strict.AndMore(more))
	}
	return applied, fmt.Sprintf("metadata.annotations[%s]: what it records was changed after injection, by another admission or by hand, "+
		"or put in with other settings, and is put back: %s", StatusKey, strict.Cut(strings.Join(found, "; "), strict.MaxDetail))
}
