// Package cases reads the injection cases: files that hold a pod, its
// namespace and the injector's configuration, and what must become of them.
// The same files are run against package inject, the webhook and the command
// line.
//
// A case is a txtar archive. Flowing in: pod.yaml, and optionally
// namespace.yaml and config.yaml, which changes config.Default. Wanted:
// want.txt, whose first line is the reason, followed by a line for every error
// and warning; and of the injected pod want.diff, what is different from the
// pod that default settings make. A dozen cases have want.yaml instead, the
// injected pod as a whole.
package cases

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
)

// Names of the files in an archive.
const (
	podFile       = "pod.yaml"
	namespaceFile = "namespace.yaml"
	configFile    = "config.yaml"
	wantTextFile  = "want.txt"
	wantDiffFile  = "want.diff"
	wantPodFile   = "want.yaml"
)

// Case is one file.
type Case struct {
	Name      string // the file's, without its ending
	Pod       *corev1.Pod
	Namespace annotation.Namespace
	Config    config.Config

	want map[string]string // the wanted files, by their names

	path    string
	archive *txtar.Archive
}

// Load reads all cases of a folder, in the order of their names.
func Load(dir string) ([]Case, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil {
		return nil, fmt.Errorf("list the cases in %s: %w", dir, err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("list the cases in %s: there is none", dir)
	}
	slices.Sort(files)
	all := make([]Case, 0, len(files))
	for _, file := range files {
		c, err := read(file)
		if err != nil {
			return nil, fmt.Errorf("read case %s: %w", file, err)
		}
		all = append(all, c)
	}
	return all, nil
}

func read(path string) (Case, error) {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		return Case{}, err
	}
	c := Case{
		Name: strings.TrimSuffix(filepath.Base(path), ".txtar"), Config: config.Default(),
		path: path, archive: archive, want: map[string]string{},
	}
	for _, file := range archive.Files {
		if err := c.take(file); err != nil {
			return Case{}, fmt.Errorf("%s: %w", file.Name, err)
		}
	}
	if c.Pod == nil {
		return Case{}, fmt.Errorf("%s: not there", podFile)
	}
	return c, nil
}

func (c *Case) take(file txtar.File) (err error) {
	switch file.Name {
	case podFile:
		c.Pod, err = unmarshal(file.Data)
		return err
	case namespaceFile:
		var ns corev1.Namespace
		err = yaml.UnmarshalStrict(file.Data, &ns)
		c.Namespace = annotation.Namespace{Name: ns.Name, Labels: ns.Labels, Annotations: ns.Annotations}
		return err
	case configFile:
		c.Config, err = inject.ParseConfig(file.Data)
		return err
	case wantTextFile, wantDiffFile, wantPodFile:
		c.want[file.Name] = string(file.Data)
		return nil
	}
	return fmt.Errorf("unknown file; accepted: %s, %s, %s, %s, %s, %s",
		podFile, namespaceFile, configFile, wantTextFile, wantDiffFile, wantPodFile)
}

// Summary prints an outcome as want.txt has it: the reason, then the errors,
// then the warnings, a line each.
func Summary(result inject.Result) string {
	var text strings.Builder
	fmt.Fprintln(&text, result.Reason)
	for _, message := range result.Messages() {
		fmt.Fprintf(&text, "error: %s\n", message)
	}
	for _, warning := range result.Warnings {
		fmt.Fprintf(&text, "warning: %s\n", warning)
	}
	return text.String()
}

// Want is the wanted outcome, as Summary prints it.
func (c Case) Want() string { return c.want[wantTextFile] }

// Check returns how a result differs from the wanted one, or nothing.
func (c Case) Check(result inject.Result) (string, error) {
	got, err := c.files(result)
	return cmp.Diff(c.want, got), err
}

// Rewrite makes the result the wanted one, in the case's file.
func (c Case) Rewrite(result inject.Result) error {
	got, err := c.files(result)
	if err != nil {
		return err
	}
	kept := slices.DeleteFunc(slices.Clone(c.archive.Files), func(f txtar.File) bool { return strings.HasPrefix(f.Name, "want.") })
	for _, name := range []string{wantTextFile, wantDiffFile, wantPodFile} {
		if text, is := got[name]; is {
			kept = append(kept, txtar.File{Name: name, Data: []byte(text)})
		}
	}
	written := txtar.Format(&txtar.Archive{Comment: c.archive.Comment, Files: kept})
	if err := os.WriteFile(c.path, written, 0o644); err != nil {
		return fmt.Errorf("rewrite case %s: %w", c.Name, err)
	}
	return nil
}

// files returns the wanted files for a result.
func (c Case) files(result inject.Result) (map[string]string, error) {
	files := map[string]string{wantTextFile: Summary(result)}
	if result.Pod == nil {
		return files, nil
	}
	text, err := marshal(result.Pod)
	if err != nil {
		return nil, fmt.Errorf("print the pod of case %s: %w", c.Name, err)
	}
	if _, whole := c.want[wantPodFile]; whole {
		files[wantPodFile] = text
		return files, nil
	}
	usual, err := marshal(c.byDefault())
	if err != nil {
		return nil, fmt.Errorf("print the pod of case %s by default: %w", c.Name, err)
	}
	const context = 1 // lines
	files[wantDiffFile], err = udiff.ToUnified("by default", "here", usual, udiff.Lines(usual, text), context)
	return files, err
}

// byDefault returns the case's pod injected in its mode with default settings,
// without its other labels and annotations for Shunt. A pod that would be denied
// stays as it is.
func (c Case) byDefault() *corev1.Pod {
	edit, _ := inject.Restore(c.Pod)
	pod := edit.Pod().DeepCopy()
	for _, row := range annotation.Table() {
		if row.Key != annotation.InterceptionModeKey {
			delete(pod.Annotations, row.Key)
			delete(pod.Labels, row.Key)
		}
	}
	enabled := annotation.Namespace{Labels: map[string]string{annotation.NamespaceInjectionKey: annotation.NamespaceEnabled}}
	if result := inject.Inject(pod, enabled, config.Default()); result.Pod != nil {
		return result.Pod
	}
	return c.Pod
}

func unmarshal(text []byte) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	if err := yaml.UnmarshalStrict(text, pod); err != nil {
		return nil, err
	}
	return pod, nil
}

// marshal prints a pod without its status, which no case has.
func marshal(pod *corev1.Pod) (string, error) {
	text, err := yaml.Marshal(pod)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(string(text), "status: {}\n"), nil
}
