package live

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/check"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/strict"
)

// Explanation is what a pod has of Shunt, what a new one would get, and why.
type Explanation struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	Workload  Workload `json:"workload"`

	// Proxy is whether the pod has it; the next three are as it was injected.
	Proxy    bool   `json:"proxy"`
	Mode     string `json:"mode,omitempty"`
	Revision string `json:"revision,omitempty"`
	Version  string `json:"version,omitempty"`

	State State `json:"state"`
	// Sentence is what State means for this pod.
	Sentence string `json:"sentence"`
	// Reason, DecidedBy and Errors are of the decision about a new pod.
	Reason    inject.Reason `json:"reason,omitempty"`
	DecidedBy string        `json:"decidedBy,omitempty"`
	Errors    []string      `json:"errors,omitempty"`
	Warnings  []string      `json:"warnings,omitempty"`
	// Configuration is where the settings of a new pod come from.
	Configuration string `json:"configuration"`

	Changes    []inject.Change  `json:"changes,omitempty"`
	Containers []Container      `json:"containers,omitempty"`
	Settings   []inject.Setting `json:"settings,omitempty"`
}

// Container is what kubelet says of one of our containers.
type Container struct {
	Name     string `json:"name"`
	Image    string `json:"image"`
	State    string `json:"state"`
	Ready    bool   `json:"ready"`
	Restarts int32  `json:"restarts"`
	// Last is how it ended the last time; empty if it never did.
	Last string `json:"lastTermination,omitempty"`
}

// Explain explains one pod of a snapshot.
func Explain(s check.Snapshot, pod *corev1.Pod) Explanation {
	j := newJudge(s)
	v, ns := j.pod(pod), j.namespace(pod.Namespace)
	e := Explanation{
		Namespace: pod.Namespace, Name: pod.Name, Workload: WorkloadOf(pod), Proxy: v.has, State: v.state, Containers: containers(pod),
	}
	if v.has {
		e.Mode, e.Revision, e.Version = v.mode(pod), v.status.Revision, v.status.InjectorVersion
	}
	if v.shunt == nil {
		e.Configuration = "no webhook of Shunt was found"
		if unread := unread(s); len(unread) > 0 {
			e.Configuration = strings.Join(unread, "; ")
		}
		e.Sentence = "what a new pod would get is not known"
		return e
	}
	explained := inject.Explain(pod, ns, v.shunt.Config, v.shunt.Origins)
	e.Reason, e.DecidedBy = v.result.Reason, v.shunt.injector.DecidedBy(pod, ns)
	e.Settings, e.Configuration = explained.Settings, source(v.shunt)
	if unread := unread(s); len(unread) > 0 && !v.shunt.Known {
		e.Configuration += "; " + strings.Join(unread, "; ")
	}
	if v.state == Denied {
		e.Errors = v.result.Messages()
	}
	if v.state == Outdated && v.result.Inject {
		e.Changes = inject.Changes(pod, v.result.Pod)
	}
	for _, warning := range v.result.Warnings {
		// Of changes that have names, they are enough.
		ofStatus := strings.HasPrefix(warning, "metadata.annotations["+podplan.StatusKey+"]")
		if !ofStatus || v.state == Outdated && len(e.Changes) == 0 {
			e.Warnings = append(e.Warnings, warning)
		}
	}
	e.Sentence = v.sentence(pod, j.namespaces[pod.Namespace], len(e.Changes))
	return e
}

func source(s *shunt) string {
	text := s.Source
	if s.Version != "" {
		text += "; webhook " + printable(s.Version)
	}
	if s.Problem != "" {
		text += ": " + strict.Cut(s.Problem, strict.MaxDetail)
	}
	return text
}

// unread says what the user may not read.
func unread(s check.Snapshot) []string {
	var lines []string
	for _, resource := range slices.Sorted(maps.Keys(s.Unread)) {
		lines = append(lines, "not read: "+s.Unread[resource].Error())
	}
	return lines
}

// sentence says what a pod's state means.
func (v verdict) sentence(pod *corev1.Pod, ns corev1.Namespace, changes int) string {
	switch v.state {
	case UpToDate:
		return "a new pod would be the same"
	case Outdated:
		switch {
		case v.status.Version == "":
			return "it was injected by another version of Shunt, which left no status that can be read"
		case changes == 0:
			return "it was changed after the injection; a new pod is put right"
		default:
			return "a new pod would get other settings"
		}
	case Missing:
		return "a new pod would get the proxy; this one has none: " + v.whyMissing(pod, ns)
	case Denied:
		return "a new pod would be denied: " + v.result.Reason.Sentence()
	case Unwanted:
		return "a new pod would not get the proxy: " + v.result.Reason.Sentence()
	case NoProxy:
		switch {
		case v.result.Inject:
			return "a new pod would not get the proxy: the selectors of " + v.shunt.Object() +
				" exclude it, so that the webhook is not asked"
		case v.result.Reason == inject.ReasonOtherRevision:
			return "a new pod would not get the proxy: " + v.result.Reason.Sentence() + ", which no webhook has"
		}
		return "a new pod would not get the proxy: " + v.result.Reason.Sentence()
	default:
		return "what a new pod would get is not known"
	}
}

// containers returns what kubelet says of our containers.
func containers(pod *corev1.Pod) []Container {
	var all []Container
	for _, name := range []string{podplan.InitContainerName, podplan.ProxyContainerName} {
		spec := podplan.Container(pod, name)
		if spec == nil {
			continue
		}
		c := Container{Name: name, Image: spec.Image, State: "not created yet"}
		for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
			for _, status := range list {
				if status.Name == name {
					c.Ready, c.Restarts = status.Ready, status.RestartCount
					c.State, c.Last = stateOf(status.State), ended(status.LastTerminationState.Terminated)
				}
			}
		}
		all = append(all, c)
	}
	return all
}

func stateOf(state corev1.ContainerState) string {
	switch {
	case state.Running != nil:
		return "running since " + state.Running.StartedAt.UTC().Format(time.RFC3339)
	case state.Terminated != nil:
		return ended(state.Terminated)
	case state.Waiting != nil && state.Waiting.Message != "":
		return "waiting: " + state.Waiting.Reason + ": " + state.Waiting.Message
	case state.Waiting != nil:
		return "waiting: " + state.Waiting.Reason
	default:
		return "waiting"
	}
}

// ended says how a container ended. The last line of its output is in Message.
func ended(state *corev1.ContainerStateTerminated) string {
	if state == nil {
		return ""
	}
	text := fmt.Sprintf("%s, exit code %d, at %s", state.Reason, state.ExitCode, state.FinishedAt.UTC().Format(time.RFC3339))
	lines := strings.Split(strings.TrimSpace(state.Message), "\n")
	if last := lines[len(lines)-1]; last != "" && state.ExitCode != 0 {
		text += ": " + last
	}
	return text
}
