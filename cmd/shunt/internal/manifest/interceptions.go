package manifest

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// Interception is what the init container of one pod does.
type Interception struct {
	Place   string // of the pod: file, document and object
	Mode    interception.Mode
	Spec    interception.Spec // in ModeNone the default
	Options interception.Options

	wanting bool // a pod of a cluster, which has none
}

// Interceptions returns those of all pods of a document. Of a pod that has the
// init container they are its arguments; of any other, those that it would be
// given. The notes name the pods that have no init container, with the reason.
func (in Injector) Interceptions(doc Document) (all []Interception, notes []string, err error) {
	workloads, err := doc.Workloads(in.Namespace)
	errs := []error{err}
	if len(workloads) > 0 {
		notes = doc.notes()
	}
	for _, w := range workloads {
		found, why, err := in.interception(w)
		switch {
		case err != nil:
			errs = append(errs, err)
		case why != "":
			notes = append(notes, w.Place()+": not injected: "+why)
		default:
			found.Place = w.Place()
			all = append(all, found)
			if found.wanting {
				notes = append(notes, w.Place()+": the pod has no proxy; printed is what injection would give it")
			}
		}
	}
	return all, notes, errors.Join(errs...)
}

// interception is that of one workload, or why it has none.
func (in Injector) interception(w Workload) (found Interception, why string, err error) {
	if w.Template == nil {
		return Interception{}, "it has no pod template", nil
	}
	pod, err := w.pod()
	if err != nil {
		return Interception{}, "", err
	}
	if i, ok := initContainer(pod); ok {
		return w.parse(pod, i)
	}
	if reason, sentence := w.leftAlone(); reason != "" {
		return Interception{}, fmt.Sprintf("%s: %s", reason, sentence), nil
	}
	result := inject.Inject(pod, in.namespace(w), in.Config)
	if result.Denied() {
		return Interception{}, "", w.refused(result.Decision)
	}
	if !result.Inject {
		return Interception{}, fmt.Sprintf("%s: %s", result.Reason, result.Reason.Sentence()), nil
	}
	i, _ := initContainer(result.Pod)
	found, why, err = w.parse(result.Pod, i)
	found.wanting = pod.UID != "" // an API server sets it
	return found, why, err
}

// parse reads the arguments of the pod's i-th init container.
func (w Workload) parse(pod *corev1.Pod, i int) (found Interception, why string, err error) {
	args := pod.Spec.InitContainers[i].Args
	if len(args) > 0 && args[0] == interception.ShareCommand {
		return shareAlone(args), "", nil
	}
	found.Spec, found.Options, err = interception.ParseArgs(args)
	if found.Mode = found.Spec.Mode(); err == nil {
		return found, "", nil
	}
	var errs []error
	for line := range strings.Lines(err.Error()) {
		errs = append(errs, w.wrong(fmt.Errorf("%s: %s",
			w.field(fmt.Sprintf("spec.initContainers[%d].args", i)), strings.TrimSpace(line))))
	}
	return Interception{}, "", errors.Join(errs...)
}

// shareAlone is what an init container does that leaves the proxy its files and
// intercepts nothing.
func shareAlone(args []string) Interception {
	found := Interception{Mode: interception.ModeNone, Spec: interception.Default(), Options: interception.DefaultOptions()}
	for _, arg := range args {
		if settings, is := strings.CutPrefix(arg, "--envoy="); is {
			found.Options.Envoy = settings
		}
	}
	return found
}

func initContainer(pod *corev1.Pod) (int, bool) {
	for i, c := range pod.Spec.InitContainers {
		if c.Name == podplan.InitContainerName {
			return i, true
		}
	}
	return 0, false
}
