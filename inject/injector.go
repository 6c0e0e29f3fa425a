package inject

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/inject/podplan"
)

// Injector injects by one configuration. It is for many pods, and never
// changes.
type Injector struct {
	cfg     Config
	sidecar *maker

	always, never selectors
}

// NewInjector returns an Injector that goes by cfg, which must have passed
// Validate and must not be changed afterwards.
func NewInjector(cfg Config) *Injector {
	return &Injector{
		cfg: cfg, sidecar: newMaker(cfg),
		always: mustCompile(cfg.AlwaysInjectSelector), never: mustCompile(cfg.NeverInjectSelector),
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
func Inject(pod *corev1.Pod, ns Namespace, cfg Config) Result {
	return NewInjector(cfg).Inject(pod, ns)
}

// Restore undoes the injection of a pod: it takes out all that the pod's status
// records. It is not ok for a pod without a status that an injector of this
// version wrote. The pod is not changed.
//
// What a pod had of empty lists and maps cannot be told from their absence,
// nor can Kubernetes: they are absent afterwards.
func Restore(pod *corev1.Pod) (edit *podplan.Edit, ok bool) {
	return podplan.Undo(pod, userVolumeNames(pod))
}

// ParseConfig reads a configuration from the YAML or JSON of one document; see
// config.Decode. The error has all that is wrong with it.
func ParseConfig(text []byte) (Config, error) {
	cfg, unknown, err := decodeConfig(text)
	if err != nil {
		return Config{}, fmt.Errorf("read the injector's configuration: %w", err)
	}
	if err := append(unknown, ValidateConfig(cfg)...).ToAggregate(); err != nil {
		return Config{}, fmt.Errorf("check the injector's configuration: %w", err)
	}
	return cfg, nil
}

// ValidateConfig returns an error for every setting that cannot be used, with
// the setting's path, its value and what is accepted.
func ValidateConfig(cfg Config) field.ErrorList {
	return slices.Concat(cfg.Validate(), checkForbidden(field.NewPath("forbiddenAnnotations"), cfg.ForbiddenAnnotations),
		validateSidecars(cfg))
}
