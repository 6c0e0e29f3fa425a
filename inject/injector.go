package inject

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/sidecar"
)

// Injector injects by one configuration. It is for many pods, and never
// changes.
type Injector struct {
	cfg     config.Config
	sidecar *sidecar.Maker

	always, never config.Selectors
}

// NewInjector returns an Injector that goes by cfg, which must have passed
// Validate and must not be changed afterwards.
func NewInjector(cfg config.Config) *Injector {
	return &Injector{
		cfg: cfg, sidecar: sidecar.NewMaker(cfg),
		always: config.CompileSelectors(cfg.AlwaysInjectSelector), never: config.CompileSelectors(cfg.NeverInjectSelector),
	}
}

// Result is what became of a pod.
type Result struct {
	Decision
	// Plan is what the pod gets or has; nil unless it is injected, now or
	// already.
	Plan *podplan.Plan
	// Pod is the injected pod, and Operations make it of the JSON of the pod that
	// flowed in; nil unless Inject. The pod shares memory with that one, and is
	// not to be changed.
	Pod        *corev1.Pod
	Operations []podplan.Operation
	// Warnings are for the pod's owner, one line each.
	Warnings []string
}

// Inject is Injector.Inject for a single pod.
func Inject(pod *corev1.Pod, ns annotation.Namespace, cfg config.Config) Result {
	return NewInjector(cfg).Inject(pod, ns)
}

// Restore undoes the injection of a pod: it takes out all that the pod's status
// records. It is not ok for a pod without a status that an injector of this
// version wrote. The pod is not changed.
//
// What a pod had of empty lists and maps cannot be told from their absence,
// nor can Kubernetes: they are absent afterwards.
func Restore(pod *corev1.Pod) (edit *podplan.Edit, ok bool) {
	return podplan.Undo(pod, annotation.UserVolumeNames(pod))
}

// ParseConfig reads a configuration from the YAML or JSON of one document; see
// config.Decode. The error has all that is wrong with it.
func ParseConfig(text []byte) (config.Config, error) {
	cfg, unknown, err := config.Decode(text)
	if err != nil {
		return config.Config{}, fmt.Errorf("read the injector's configuration: %w", err)
	}
	if err := append(unknown, ValidateConfig(cfg)...).ToAggregate(); err != nil {
		return config.Config{}, fmt.Errorf("check the injector's configuration: %w", err)
	}
	return cfg, nil
}

// ValidateConfig returns an error for every setting that cannot be used, with
// the setting's path, its value and what is accepted.
func ValidateConfig(cfg config.Config) field.ErrorList {
	return slices.Concat(cfg.Validate(), annotation.ValidateForbidden(field.NewPath("forbiddenAnnotations"), cfg.ForbiddenAnnotations),
		sidecar.Validate(cfg))
}
