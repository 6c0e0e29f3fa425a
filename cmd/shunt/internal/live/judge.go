package live

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/check"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// State is how a pod compares with one that were created now.
type State string

// The values of State.
const (
	UpToDate State = "UpToDate" // a new pod would be the same
	Outdated State = "Outdated" // a new pod would get the proxy with other settings
	Missing  State = "Missing"  // it has no proxy, and a new pod would get it
	Unwanted State = "Unwanted" // it has the proxy, and a new pod would not get it
	Denied   State = "Denied"   // a new pod would be denied
	NoProxy  State = "NoProxy"  // it has no proxy, and a new pod would not get it
	Unknown  State = "Unknown"  // the settings that a new pod would get are not known
)

// judge decides about pods as the webhooks of a cluster do.
type judge struct {
	shunts     []shunt
	namespaces map[string]corev1.Namespace
}

type shunt struct {
	check.Shunt
	injector *inject.Injector
}

func newJudge(s check.Snapshot) judge {
	j := judge{namespaces: map[string]corev1.Namespace{}}
	for _, one := range s.Shunts() {
		j.shunts = append(j.shunts, shunt{one, inject.NewInjector(one.Config)})
	}
	for _, ns := range s.Namespaces {
		j.namespaces[ns.Name] = ns
	}
	return j
}

func (j judge) namespace(name string) annotation.Namespace {
	ns := j.namespaces[name]
	return annotation.Namespace{Name: name, Labels: ns.Labels, Annotations: ns.Annotations}
}

// verdict is the decision about one pod.
type verdict struct {
	state  State
	shunt  *shunt // which decided; nil if there is none
	result inject.Result
	// asked is whether the API server asks the shunt about such a pod.
	asked  bool
	has    bool // one of our containers
	status podplan.Status
}

// pod decides about a pod, by the installation that wants it, or else by the one
// that injected it, or else by the first.
func (j judge) pod(pod *corev1.Pod) verdict {
	ns := j.namespace(pod.Namespace)
	v := verdict{state: Unknown, has: podplan.HasContainers(pod)}
	v.status, _ = podplan.ReadStatus(pod)
	best := -1
	for i := range j.shunts {
		s := &j.shunts[i]
		result := s.injector.Inject(pod, ns)
		rank := 0
		switch {
		case result.Inject, result.Denied(), result.Reason == inject.ReasonAlreadyInjected:
			rank = 2
		case v.has && v.status.Revision == s.Config.Revision:
			rank = 1
		}
		if rank > best {
			best, v.shunt, v.result = rank, s, result
		}
	}
	if v.shunt == nil {
		return v
	}
	v.asked = v.shunt.Selects(pod, ns)
	v.state = v.compared()
	return v
}

// compared returns the state of a pod. A new pod would not have the containers
// because of which one with containers of ours and no status is denied.
func (v verdict) compared() State {
	switch {
	case v.result.Reason == inject.ReasonNameTaken && v.has && v.status.Version == "":
		return Outdated
	case v.result.Denied():
		return Denied
	case v.result.Reason == inject.ReasonAlreadyInjected:
		return UpToDate
	case v.result.Inject && v.has && !v.shunt.Known:
		return Unknown
	case v.result.Inject && v.has:
		return Outdated
	case v.result.Inject && v.asked:
		return Missing
	case v.has:
		return Unwanted
	default:
		return NoProxy
	}
}

// mode returns that of an injected pod. Versions whose status has none wrote it to
// shunt-init's arguments only.
func (v verdict) mode(pod *corev1.Pod) string {
	if v.status.Mode != "" {
		return string(v.status.Mode)
	}
	container := podplan.Container(pod, podplan.InitContainerName)
	if container == nil {
		return ""
	}
	if len(container.Args) > 0 && container.Args[0] == interception.ShareCommand {
		return string(interception.ModeNone)
	}
	spec, _, err := interception.ParseArgs(container.Args)
	if err != nil {
		return ""
	}
	return string(spec.Mode())
}

// whyMissing says why a pod has no proxy that should have it, as far as the
// cluster's objects tell.
//
//	older than the webhooks                    -> that
//	older than the last change of the labels
//	  by whoever set the one that decides      -> that
//	else                                       -> what else may be
func (v verdict) whyMissing(pod *corev1.Pod, ns corev1.Namespace) string {
	created := pod.CreationTimestamp.Time
	if registered := v.shunt.Registered(); created.Before(registered) {
		return fmt.Sprintf("it was created at %s, before the webhook was registered, at %s", at(created), at(registered))
	}
	for _, key := range []string{annotation.NamespaceInjectionKey, annotation.RevisionKey} {
		if _, present := ns.Labels[key]; !present {
			continue
		}
		if by, changed := labelled(ns, key); created.Before(changed) {
			return fmt.Sprintf("it was created at %s, and %s last changed the namespace with its label %s later, at %s",
				at(created), printable(by), key, at(changed))
		}
	}
	return fmt.Sprintf("when it was created, at %s, the labels or the configuration were others, or the webhook did not answer "+
		"and its failurePolicy was Ignore", at(created))
}

func at(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// labelled returns who set a label of a namespace, and when they last changed
// anything in it, which is not before they set the label.
func labelled(ns corev1.Namespace, key string) (by string, changed time.Time) {
	for _, entry := range ns.ManagedFields {
		if entry.FieldsV1 == nil || entry.Time == nil || !strings.Contains(entry.FieldsV1.GetRawString(), `"f:`+key+`"`) {
			continue
		}
		if entry.Time.After(changed) {
			by, changed = entry.Manager, entry.Time.Time
		}
	}
	return by, changed
}
