package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/cmd/internal/injectflags"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/manifest"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
)

// Manifests are pods of files: those that are injected have the rules of their init
// container, the others those that injection would give them.
type Manifests struct {
	Files  Files
	Config *string // file of the injector's configuration; nil if not given
}

func (m *Manifests) addFlags(fs *pflag.FlagSet) {
	m.Files.AddFlags(fs)
	fs.Func("config", "with -f: the injector's configuration, YAML or JSON, or a ConfigMap that holds it", func(path string) error {
		m.Config = &path
		return nil
	})
}

func (m *Manifests) name() string { return "--filename" }

func (m *Manifests) given() bool { return len(m.Files.Names) > 0 }

func (m *Manifests) check() error {
	switch {
	case m.given():
		return nil
	case m.Files.Recursive:
		return errors.New("--recursive without -f; accepted: with -f and a folder")
	case m.Config != nil:
		return errors.New("--config without -f; accepted: with -f")
	}
	return nil
}

func (m *Manifests) read(_ context.Context, streams Streams) ([]trace.Pod, error) {
	var pods []trace.Pod
	err := m.Each(streams.Stdin, streams.Stderr, func(pod manifest.Interception) error {
		if pod.Mode == interception.ModeNone {
			pods = append(pods, trace.Wanted(pod.Place, pod.Spec, nil))
			fmt.Fprintf(streams.Stderr, "%s: no rules: %s is NONE\n", pod.Place, annotation.InterceptionModeKey)
			return nil
		}
		pods = append(pods, trace.Wanted(pod.Place, pod.Spec, familiesOf(pod.Options)))
		return nil
	})
	return pods, err
}

// familiesOf returns the families that shunt-init intercepts in a pod of both.
func familiesOf(opts interception.Options) []ruleset.Family {
	if opts.IPv6 == interception.IPv6Off {
		return []ruleset.Family{ruleset.IPv4}
	}
	return ruleset.Families
}

// OfFlags returns the pod that shunt-init makes with some flags.
func OfFlags(args []string) (trace.Pod, error) {
	spec, opts, err := interception.ParseArgs(args)
	if err != nil {
		return trace.Pod{}, &ArgsError{err}
	}
	return trace.Wanted(strings.TrimSpace("shunt-init "+strings.Join(args, " ")), spec, familiesOf(opts)), nil
}

// ArgsError wraps an error in what the user typed, rather than in what it names.
type ArgsError struct{ error }

// Unwrap returns the error.
func (e *ArgsError) Unwrap() error { return e.error }

// Each calls do for each pod of the files that has an init container of ours, or
// would have one, and names the others on stderr.
func (m *Manifests) Each(stdin io.Reader, stderr io.Writer, do func(manifest.Interception) error) error {
	cfg := config.Default()
	if m.Config != nil {
		var err error
		if cfg, err = injectflags.ReadFile(*m.Config); err != nil {
			return &ArgsError{err}
		}
	}
	inputs, err := m.Files.Read(stdin)
	if err != nil {
		return err
	}
	injector := manifest.Injector{Config: cfg, Namespace: "default", Namespaces: NamespacesOf(inputs)}
	return EachInterception(injector, inputs, stderr, do)
}

// NamespacesOf collects the Namespaces of all files.
func NamespacesOf(inputs []Input) manifest.Namespaces {
	all := manifest.Namespaces{}
	for _, in := range inputs {
		for _, doc := range in.Docs {
			all.Add(doc)
		}
	}
	return all
}

// EachInterception calls do for each pod of the inputs that has an init container
// of ours, or would have one, and names the others on stderr.
func EachInterception(injector manifest.Injector, inputs []Input, stderr io.Writer, do func(manifest.Interception) error) error {
	found := 0
	var errs []error
	var names []string
	for _, in := range inputs {
		names = append(names, in.Name)
		for _, doc := range in.Docs {
			pods, notes, err := injector.Interceptions(doc)
			errs = append(errs, err)
			for _, note := range notes {
				fmt.Fprintln(stderr, note)
			}
			found += len(pods) + len(notes)
			for _, pod := range pods {
				errs = append(errs, do(pod))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if found == 0 {
		return fmt.Errorf("%s: no pod found; accepted: %s, List", strings.Join(names, ", "), strings.Join(manifest.Kinds(), ", "))
	}
	return nil
}
