package check

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/shunt-dev/shunt/cmd/internal/injectflags"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/strict"
)

// settings are an installation's configuration.
type settings struct {
	config.Config
	// known is false if they are only the defaults.
	known        bool
	object, text string // where they are from, and what the finding says about them
	// fields are those that the file sets, and byFlag reports whether a flag sets
	// the revision.
	fields []string
	byFlag bool
	// inForce is what the replicas answered; of none if they were not asked.
	inForce inForce
}

// configured reads the settings with which pods are compared: those in force or,
// where no replica can be asked, those of the ConfigMap. It returns false if there
// are none.
//
//	the file  replicas  -> compared with, and reported
//	good      none      -> the file; OK, and why none was asked
//	bad       none      -> nothing; FAIL
//	good      the same  -> what is in force; OK
//	good      others    -> what is in force; WARN with what differs
//	bad       any       -> what is in force; FAIL, since no replica starts with the file, and WARN
func (r *report) configured(s Snapshot, in installation) (cfg settings, ok bool) {
	cfg, err := s.settings(in)
	asked := len(cfg.inForce.replicas) > 0
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			r.add(Fail, Configuration, cfg.object, "%s", strings.TrimSuffix(line, "\n"))
		}
		if !asked {
			return cfg, false
		}
	}
	cfg.Config = cfg.ForAPIServer(s.NativeSidecars)
	asShould := err == nil
	if asked {
		asShould = r.current(&cfg, in, err == nil)
	}
	revisions := in.revisions()
	switch {
	case len(revisions) > 0 && !slices.Contains(revisions, cfg.Revision):
		r.add(Fail, Configuration, cfg.object, "it is for revision %s, but the webhooks select pods of revision %s: none is injected",
			cfg.Revision, strings.Join(revisions, ", "))
	case cfg.known && !asShould: // said above
	case cfg.known:
		r.add(OK, Configuration, cfg.object, "%s; revision %s", cfg.text, cfg.Revision)
	default:
		r.add(Warn, Configuration, cfg.object, "%s", cfg.text)
	}
	r.optOut(in, cfg)
	return cfg, true
}

// current makes the settings those that are in force, and reports whether they are
// the file's, in all replicas.
func (r *report) current(cfg *settings, in installation, valid bool) bool {
	file, first := cfg.Config, cfg.inForce.replicas[0]
	cfg.Config = cfg.inForce.Config
	cfg.text = inForceIn(len(cfg.inForce.replicas))
	agreed := r.disagreements(cfg.inForce)
	since := first.InForce.Since.UTC().Format(time.RFC3339)
	switch differs := config.Differences(cfg.Config, file); {
	case !valid:
		r.add(Warn, Configuration, in.deploymentObject(), "the last good configuration is in force, since %s: pods are compared with it",
			since)
	case first.InForce.Error != "" && len(differs) > 0:
		r.add(Warn, Configuration, cfg.object, "not in force: the webhook refuses its file: %s; in force since %s is what was before: %s",
			strict.Cut(first.InForce.Error, strict.MaxDetail), since, strings.Join(lines(differs), "; "))
	case len(differs) > 0:
		r.add(Warn, Configuration, cfg.object, "not in force yet: %s; kubelet takes up to a minute to update the webhook's file",
			strings.Join(lines(differs), "; "))
	default:
		return agreed
	}
	return false
}

func inForceIn(replicas int) string {
	if replicas == 1 {
		return "in force in 1 replica"
	}
	return fmt.Sprintf("in force in %d replicas", replicas)
}

// optOut finds webhooks that do not get the pods that the configuration denies for
// opting out.
func (r *report) optOut(in installation, cfg settings) {
	if !slices.Contains(cfg.ForbiddenAnnotations, annotation.InjectKey) {
		return
	}
	declines := labels.Set{annotation.InjectKey: "false"}
	var names []string
	for _, w := range in.webhooks {
		if len(selectedRevisions(w.NamespaceSelector)) > 0 && !matches(w.ObjectSelector, declines) {
			names = append(names, w.Name)
		}
	}
	if len(names) > 0 {
		r.add(Warn, Configuration, cfg.object, "forbiddenAnnotations has %s, but pods with the label %[1]s: \"false\" are not sent "+
			"to the webhook: the objectSelector of %s excludes them", annotation.InjectKey, strings.Join(names, ", "))
	}
}

// settings returns those of --config, or of the Deployment and its ConfigMap, or
// the defaults.
func (s Snapshot) settings(in installation) (settings, error) {
	if s.Config != nil {
		return settings{Config: *s.Config, known: true, object: in.object(), text: "from --config"}, nil
	}
	if in.deployment == nil {
		return in.unknownSettings(), nil
	}
	return s.deployedSettings(in)
}

func (in installation) unknownSettings() settings {
	cfg := settings{
		Config: config.Default(), object: in.object(),
		text: "unknown: the settings of pods are not checked; pass it with --config FILE",
	}
	if revisions := in.revisions(); len(revisions) == 1 {
		cfg.Revision = revisions[0]
	}
	return cfg
}

// deployedSettings returns those of the Deployment's flags and its file, with the
// answers of its replicas.
func (s Snapshot) deployedSettings(in installation) (settings, error) {
	found := s.inForce(in)
	cfg, err := s.fileSettings(in)
	cfg.inForce = found
	switch {
	case len(found.replicas) == 0:
		cfg.text += "; not asked whether it is in force: " + found.unasked
	case errors.Is(err, errElsewhere), err == nil && !cfg.known: // nothing can be read of the file
		cfg.Config, cfg.known, err = found.Config, true, nil
	}
	return cfg, err
}

// errElsewhere means that the configuration's file cannot be read by the API.
var errElsewhere = errors.New("is in no ConfigMap")

// fileSettings returns the settings with which a replica would start now.
func (s Snapshot) fileSettings(in installation) (settings, error) {
	cfg := settings{known: true, object: in.deploymentObject(), text: "the container's flags are valid"}
	flags, container := in.flags()
	if flags == nil {
		return cfg, errors.New("it has no container")
	}
	var err error
	file := injectflags.File(flags)
	cfg.byFlag = flags.Changed("revision")
	if file == "" {
		cfg.Config, err = injectflags.Config(flags)
		return cfg, err
	}
	volume, rest := in.volumeOf(container, file)
	if volume == nil || volume.ConfigMap == nil {
		return cfg, fmt.Errorf("%s %w: no pod is checked; accepted: its contents with --config FILE", file, errElsewhere)
	}
	if s.cannotRead(resourceConfigMaps) {
		return in.unknownSettings(), nil
	}
	cfg.object = "ConfigMap/" + in.deployment.Namespace + "/" + volume.ConfigMap.Name
	content, err := s.content(in.deployment.Namespace, *volume.ConfigMap, rest)
	if err != nil {
		return cfg, err
	}
	cfg.text = "valid"
	beside := func(name string) ([]byte, error) {
		content, err := s.content(in.deployment.Namespace, *volume.ConfigMap, path.Join(path.Dir(rest), name))
		return []byte(content), err
	}
	if cfg.Config, err = injectflags.Parse(flags, []byte(content), beside); err != nil {
		return cfg, err
	}
	cfg.fields, err = config.Fields([]byte(content))
	return cfg, err
}

// content returns the content of a file in a ConfigMap's volume.
func (s Snapshot) content(namespace string, source corev1.ConfigMapVolumeSource, file string) (string, error) {
	key := file
	for _, item := range source.Items {
		if item.Path == file {
			key = item.Key
		}
	}
	found := find(s.ConfigMaps, func(o *corev1.ConfigMap) bool { return o.Namespace == namespace && o.Name == source.Name })
	if found == nil {
		return "", errors.New("it does not exist: new replicas of the webhook do not start")
	}
	content, ok := found.Data[key]
	if !ok {
		return "", fmt.Errorf("data[%s]: Required value: accepted: a file of the injector's configuration", key)
	}
	return content, nil
}
