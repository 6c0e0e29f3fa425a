package podplan

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/strict"
)

// Plan is everything that one pod gets.
type Plan struct {
	Mode interception.Mode
	// Spec and Options are shunt-init's arguments. Spec is zero in mode NONE, in
	// which shunt-init only writes the proxy's files.
	Spec    interception.Spec
	Options interception.Options
	// Guaranteed is whether the pod has the quality of service Guaranteed and
	// keeps it, because our containers' requests equal their limits.
	Guaranteed bool

	Containers  Containers
	Volumes     Volumes
	Probes      Probes
	Sysctls     Sysctls
	PullSecrets PullSecrets
	Resources   Resources
	Annotations Annotations

	// Status is what the units record; Record sets it.
	Status Status
}

// unit is one thing that an injection changes in a pod.
type unit interface {
	// apply adds the unit to a pod without an earlier one: undo removed it.
	apply(edit *Edit)
	// record notes in the status what undo needs.
	record(status *Status)
	// undo removes what the status records. It does not use its receiver: the pod
	// may have been injected with other settings.
	undo(edit *Edit, status Status)
	// compare reports whether the pod has the unit as planned. changed describes
	// what was removed or changed after the injection.
	compare(pod *corev1.Pod) (same bool, changed []string)
}

func (p *Plan) units() []unit {
	return []unit{&p.Containers, &p.Probes, &p.Volumes, &p.PullSecrets, &p.Resources, &p.Sysctls, &p.Annotations}
}

// Undo begins an Edit of a pod by removing what its status records of an earlier
// injection. ok is false for a pod without a status of this version's format; the
// Edit then begins with the pod as it is. volumes are the names of the injector's
// volumes besides Shunt's own.
func Undo(pod *corev1.Pod, volumes []string) (edit *Edit, ok bool) {
	edit = &Edit{pod: *pod}
	status, ok := ReadStatus(pod)
	if !ok {
		return edit, false
	}
	edit.ownVolumes = sets.New(volumes...)
	var plan Plan
	for _, unit := range plan.units() {
		unit.undo(edit, status)
	}
	return edit, true
}

// Record sets the Status of a plan that is otherwise complete, made by an injector
// of the given revision and version. Do not change the plan afterwards.
func (p *Plan) Record(revision, version string) {
	p.Status = Status{Mode: p.Mode, InjectorVersion: version, Revision: revision, Version: statusVersion}
	for _, unit := range p.units() {
		unit.record(&p.Status)
	}
	p.Annotations.Status = p.Status.String()
}

// Apply adds the plan to a pod; Undo has removed an earlier one.
func (p *Plan) Apply(edit *Edit) {
	for _, unit := range p.units() {
		unit.apply(edit)
	}
}

// AppliedTo reports whether a pod has everything that the plan would add, in its
// place and unchanged. What API servers and well-known webhooks set does not
// count; same.go has the list.
//
// changed is a warning for the pod's owner if the pod's status equals the plan's
// and the pod differs: somebody changed it after the injection. It is empty if
// the status differs: the pod was injected with other settings.
func (p *Plan) AppliedTo(pod *corev1.Pod) (applied bool, changed string) {
	status, ok := ReadStatus(pod)
	if !ok || !status.sameAs(p.Status) {
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
	return applied, fmt.Sprintf("metadata.annotations[%s]: what it records was changed after the injection, by another webhook "+
		"or by hand, or injected with other settings, and is put back: %s",
		StatusKey, strict.Cut(strings.Join(found, "; "), strict.MaxDetail))
}
