package check

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/shunt-dev/shunt/cmd/internal/injectflags"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
)

// settings are an installation's configuration.
type settings struct {
	config.Config
	// known is false if they are only the defaults.
	known        bool
	object, text string // where they are from, and what the finding says about them
}

// configured reads the settings. It returns false if they are wrong.
func (r *report) configured(s Snapshot, in installation) (cfg settings, ok bool) {
	cfg, err := s.settings(in)
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			r.add(Fail, Configuration, cfg.object, "%s", strings.TrimSuffix(line, "\n"))
		}
		return cfg, false
	}
	cfg.Config = cfg.ForAPIServer(s.NativeSidecars)
	revisions := in.revisions()
	switch {
	case len(revisions) > 0 && !slices.Contains(revisions, cfg.Revision):
		r.add(Fail, Configuration, cfg.object, "it is for revision %s, but the webhooks select pods of revision %s: none is injected",
			cfg.Revision, strings.Join(revisions, ", "))
	case cfg.known:
		r.add(OK, Configuration, cfg.object, "%s; revision %s", cfg.text, cfg.Revision)
	default:
		r.add(Warn, Configuration, cfg.object, "%s", cfg.text)
	}
	r.optOut(in, cfg)
	return cfg, true
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
		return settings{*s.Config, true, in.object(), "from --config"}, nil
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

func (s Snapshot) deployedSettings(in installation) (settings, error) {
	cfg := settings{known: true, object: in.deploymentObject(), text: "the container's flags are valid"}
	flags, container := in.flags()
	if flags == nil {
		return cfg, errors.New("it has no container")
	}
	var err error
	file := injectflags.File(flags)
	if file == "" {
		cfg.Config, err = injectflags.Config(flags)
		return cfg, err
	}
	volume, rest := in.volumeOf(container, file)
	if volume == nil || volume.ConfigMap == nil {
		return cfg, fmt.Errorf("%s is in no ConfigMap: no pod is checked; accepted: its contents with --config FILE", file)
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
	cfg.Config, err = injectflags.Parse(flags, []byte(content))
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
		return "", fmt.Errorf("data[%s]: Required value: accepted: the injector's configuration", key)
	}
	return content, nil
}
