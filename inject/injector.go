package inject

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/sidecar"
)

// Injector injects pods with one configuration. It never changes, and is safe
// for concurrent use.
type Injector struct {
	cfg     config.Config
	sidecar *sidecar.Maker
	version string

	always, never config.Selectors
	excluded      interception.Prefixes // destinations, unless the pod's annotations have others
}

// DevVersion is the version of a program that no release built.
const DevVersion = "dev"

// NewInjector returns an Injector for a configuration that has passed
// ValidateConfig. The caller must not change the configuration afterwards.
func NewInjector(cfg config.Config) *Injector {
	return &Injector{
		cfg: cfg, sidecar: sidecar.NewMaker(cfg), version: DevVersion,
		always: config.CompileSelectors(cfg.AlwaysInjectSelector), never: config.CompileSelectors(cfg.NeverInjectSelector),
		excluded: cfg.ExcludedRanges(),
	}
}

// OfVersion returns the same Injector with the version of the program that it is
// part of, which the status of a pod records; empty for DevVersion.
func (in *Injector) OfVersion(version string) *Injector {
	of := *in
	of.version = cmp.Or(version, DevVersion)
	return &of
}

// Result is the decision about a pod, and the injected pod.
type Result struct {
	Decision
	// Plan is what the pod gets or already has; nil if it is skipped or denied.
	Plan *podplan.Plan
	// Pod is the injected pod, and Operations turn the original pod's JSON into
	// it; nil unless Inject. Pod shares memory with the original: do not change it.
	Pod        *corev1.Pod
	Operations []podplan.Operation
	// Warnings are for the pod's owner, one line each.
	Warnings []string
}

// Inject runs Injector.Inject for a single pod.
func Inject(pod *corev1.Pod, ns annotation.Namespace, cfg config.Config) Result {
	return NewInjector(cfg).Inject(pod, ns)
}

// Restore undoes the injection of a pod: it removes all that the pod's status
// records. ok is false for a pod without a status of this version's format. The
// pod is not changed.
//
// Empty lists and maps of the original pod are absent afterwards; Kubernetes
// does not tell the two apart.
func Restore(pod *corev1.Pod) (edit *podplan.Edit, ok bool) {
	return podplan.Undo(pod, annotation.UserVolumeNames(pod))
}

// ParseConfig reads a configuration from one YAML or JSON document; see
// config.Decode. No file is beside it. The error has everything that is wrong with
// it.
func ParseConfig(text []byte) (config.Config, error) { return ParseConfigFile(text, nil) }

// ParseConfigFile is ParseConfig for a document that has other files beside it.
func ParseConfigFile(text []byte, beside config.ReadFile) (config.Config, error) {
	cfg, wrong, err := config.Decode(text)
	if err != nil {
		return config.Config{}, fmt.Errorf("read the injector's configuration: %w", err)
	}
	wrong = append(wrong, cfg.ReadFiles(beside)...)
	// A setting that could not be read whole is not judged further.
	unread := sets.New[string]()
	for _, err := range wrong {
		if err.Type == field.ErrorTypeInvalid {
			unread.Insert(settingOf(err))
		}
	}
	for _, err := range ValidateConfig(cfg) {
		if !unread.Has(settingOf(err)) {
			wrong = append(wrong, err)
		}
	}
	if err := wrong.ToAggregate(); err != nil {
		return config.Config{}, fmt.Errorf("check the injector's configuration: %w", err)
	}
	return cfg, nil
}

// settingOf returns the setting, a field of the configuration itself, that an error
// is about.
func settingOf(err *field.Error) string {
	name, _, _ := strings.Cut(err.Field, ".")
	name, _, _ = strings.Cut(name, "[")
	return name
}

// ValidateConfig returns an error for each invalid setting, with its path, its
// value and what is accepted.
func ValidateConfig(cfg config.Config) field.ErrorList {
	return slices.Concat(cfg.Validate(), annotation.ValidateForbidden(field.NewPath("forbiddenAnnotations"), cfg.ForbiddenAnnotations),
		sidecar.Validate(cfg))
}
