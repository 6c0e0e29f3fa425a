package check

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/strict"
)

// recent is for how long a container's end is told once it runs again, or its pod
// has ended.
const recent = 24 * time.Hour

// longestMessage is how much is told of a message of Kubernetes' or of a program, in
// bytes.
const longestMessage = 400

// failing reports pods whose containers of Shunt do not run, by what kubelet says of
// them:
//
//	waits, not yet started                        -> nothing
//	waits for any other reason, or ended with an
//	  error                                       -> FAIL
//	runs, and ended with an error less than a day
//	  ago                                         -> WARN
//	shunt-init failed less than a day ago, and the
//	  pod with it, of a Job that is not complete  -> FAIL
func (r *report) failing(s Snapshot) {
	for i := range s.Pods {
		pod := &s.Pods[i]
		if pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded {
			continue
		}
		statuses := slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
		for _, status := range statuses {
			ours := status.Name == podplan.InitContainerName || status.Name == podplan.ProxyContainerName
			if pod.Status.Phase == corev1.PodFailed {
				ours = status.Name == podplan.InitContainerName && !r.complete(pod)
			}
			if !ours {
				continue
			}
			fault, found := faultOf(pod, status)
			if !found || (fault.again || pod.Status.Phase == corev1.PodFailed) && s.Now.Sub(fault.ended) > recent {
				continue
			}
			level := Fail
			if fault.again {
				level = Warn
			}
			r.addPod(level, PodFailing, pod, fault.cause(), fault.String())
			break // what stands behind it waits for it
		}
	}
}

// complete reports whether the Job that a pod belongs to wants no more pods.
func (r *report) complete(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.OwnerReferences, func(o metav1.OwnerReference) bool {
		job := r.workloads[reference(o.Kind, pod.Namespace, o.Name)]
		return job != nil && job.Complete
	})
}

// fault is why a container does not run, or last did not.
type fault struct {
	container, image string
	reason           string // kubelet's
	message          string // of kubelet, or the last line of the container's log
	exited           bool
	exitCode         int32
	restarts         int32
	again            bool // it runs again
	ended            time.Time
}

// faultOf returns what is wrong with a container of a pod.
func faultOf(pod *corev1.Pod, status corev1.ContainerStatus) (f fault, found bool) {
	f = fault{container: status.Name, restarts: status.RestartCount, again: status.State.Running != nil}
	if c := podplan.Container(pod, status.Name); c != nil {
		f.image = c.Image
	}
	end := status.State.Terminated
	if waiting := status.State.Waiting; waiting != nil {
		switch waiting.Reason {
		case "", "ContainerCreating", "PodInitializing": // it has not been tried yet, or waits for another
			return f, false
		}
		f.reason, f.message = waiting.Reason, firstLine(waiting.Message)
	}
	if end == nil {
		end = status.LastTerminationState.Terminated
	}
	if end == nil || end.ExitCode == 0 {
		return f, f.reason != ""
	}
	switch end.Reason {
	case "ContainerStatusUnknown", "Unknown": // the node went down, and not by itself did the container
		return f, f.reason != ""
	}
	f.exited, f.exitCode, f.ended = true, end.ExitCode, end.FinishedAt.Time
	switch {
	case end.Reason == reasonOOMKilled:
		f.reason, f.message = end.Reason, ""
	case end.Message != "":
		f.message = lastLine(end.Message)
	}
	if f.reason == "" {
		f.reason = end.Reason
	}
	return f, true
}

const reasonOOMKilled = "OOMKilled"

// cause is what pods of one workload have in common: a message may name the pod, and
// kubelet says by turns that it pulls an image and that it waits to try again.
func (f fault) cause() string {
	reason := f.reason
	if reason == "ImagePullBackOff" {
		reason = "ErrImagePull"
	}
	return fmt.Sprint(f.container, reason, f.image, f.exitCode)
}

func (f fault) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s: %s, image %s", f.container, f.reason, f.image)
	if f.exited {
		fmt.Fprintf(&text, ", exit code %d", f.exitCode)
		if meaning := exitCodes[f.exitCode]; f.container == podplan.InitContainerName && meaning != "" {
			fmt.Fprintf(&text, " (%s)", meaning)
		}
	}
	if f.restarts > 0 {
		fmt.Fprintf(&text, ", restarts %d", f.restarts)
	}
	if f.again {
		fmt.Fprintf(&text, ", runs since; ended last at %s", f.ended.UTC().Format(time.RFC3339))
	}
	if f.message != "" {
		fmt.Fprintf(&text, ": %s", f.message)
	}
	return text.String()
}

// exitCodes are those of shunt-init; ARCHITECTURE.md has the table.
var exitCodes = map[int32]string{
	2:   "bad arguments; nothing was touched",
	3:   "this kernel or namespace cannot take the rules; nothing was touched",
	4:   "a change failed; what was there before has been put back",
	5:   "verification found a difference",
	134: "a crash",
}

// firstLine returns the first line of a message, cut.
func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return strict.Cut(strings.TrimSpace(line), longestMessage)
}

// lastLine returns the last line of a log, cut. An error is last in it.
func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return firstLine(text[strings.LastIndexByte(text, '\n')+1:])
}
