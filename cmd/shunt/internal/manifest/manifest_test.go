package manifest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/manifest"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/cases"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// form is a way to write a pod down.
type form struct {
	name string
	wrap func(t *testing.T, pod []byte) []byte // the file, from the pod's YAML
	path []string                              // to the pod in it
	json bool
}

var forms = []form{
	{name: "pod", wrap: func(_ *testing.T, pod []byte) []byte { return pod }},
	{name: "json", wrap: toJSON, json: true},
	{name: "deployment", wrap: under("apiVersion: apps/v1\nkind: Deployment\nspec:\n  template:\n", 4), path: []string{"spec", "template"}},
	{name: "cronjob", wrap: under("apiVersion: batch/v1\nkind: CronJob\nspec:\n  jobTemplate:\n    spec:\n      template:\n", 8),
		path: []string{"spec", "jobTemplate", "spec", "template"}},
}

func toJSON(t *testing.T, pod []byte) []byte {
	t.Helper()
	text, err := yaml.YAMLToJSON(pod)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func under(head string, indent int) func(*testing.T, []byte) []byte {
	return func(_ *testing.T, pod []byte) []byte {
		text := head
		for line := range strings.Lines(string(pod)) {
			text += strings.Repeat(" ", indent) + line
		}
		return []byte(text)
	}
}

// TestCases runs the corpus of package inject through files: what comes out is the pod that package inject makes in a namespace that asks
// for it, or its refusal.
func TestCases(t *testing.T) {
	all, err := cases.Load("../../../../inject/testdata/cases")
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range all {
		pod := c.Pod.DeepCopy()
		pod.APIVersion, pod.Kind = "v1", "Pod"
		text, err := yaml.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.TrimSuffix(text, []byte("status: {}\n"))
		asking := annotation.Namespace{Name: "default", Labels: map[string]string{annotation.RevisionKey: c.Config.Revision}}
		want := inject.Inject(pod, asking, c.Config)
		// The forms take turns: the race detector makes YAML slow.
		form := forms[i%len(forms)]
		t.Run(c.Name+"/"+form.name, func(t *testing.T) {
			checkCase(t, manifest.Injector{Config: c.Config, Namespace: "default"}, form.wrap(t, text), form.path, form.json, want)
		})
	}
}

func checkCase(t *testing.T, injector manifest.Injector, text []byte, path []string, isJSON bool, want inject.Result) {
	t.Helper()
	before := split(t, text)
	outcome, err := injector.Inject(before[0])
	if want.Denied() {
		for _, problem := range want.Errors {
			placed := *problem
			placed.Field = strings.Join(append(path[:len(path):len(path)], problem.Field), ".")
			if err == nil || !strings.Contains(err.Error(), placed.Error()) {
				t.Errorf("error %v\ndoes not say %v", err, &placed)
			}
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if !want.Inject {
		notes := strings.Join(outcome.Notes, "\n")
		if !bytes.Equal(outcome.Document.Text, before[0].Text) || !strings.Contains(notes, string(want.Reason)) {
			t.Errorf("notes %q, want reason %s and the text as it was:\n%s", outcome.Notes, want.Reason, outcome.Document.Text)
		}
		return
	}
	if diff := cmp.Diff(want.Pod, podIn(t, outcome.Document.Text, path),
		cmpopts.EquateEmpty(), cmpopts.IgnoreFields(corev1.Pod{}, "TypeMeta")); diff != "" {
		t.Errorf("pod (-want +got):\n%s", diff)
	}
	again, err := injector.Inject(split(t, outcome.Document.Text)[0])
	if err != nil || !bytes.Equal(again.Document.Text, outcome.Document.Text) {
		t.Errorf("a second time: error %v, text:\n%s", err, again.Document.Text)
	}
	checkDiff(t, before, []manifest.Document{outcome.Document}, isJSON)
	checkRestored(t, before[0], outcome.Document, path)
}

// checkRestored holds that an injected document is given back with the meaning
// that it had, and byte for byte where injection only put lines in.
func checkRestored(t *testing.T, before, injected manifest.Document, path []string) {
	t.Helper()
	want := podIn(t, before.Text, path)
	earlier, hadEarlier := inject.Restore(want)
	if hadEarlier {
		want = earlier.Pod()
	}
	outcome, err := manifest.Restorer{Namespace: "default"}.Restore(split(t, injected.Text)[0])
	if err != nil || len(outcome.Notes) > 0 {
		t.Fatalf("restored with error %v, notes %q", err, outcome.Notes)
	}
	if diff := cmp.Diff(want, podIn(t, outcome.Document.Text, path), cmpopts.EquateEmpty(),
		cmpopts.IgnoreFields(corev1.Pod{}, "TypeMeta")); diff != "" {
		t.Errorf("restored pod (-before +after):\n%s", diff)
	}
	if !hadEarlier && onlyAdds(before.Text, injected.Text) && !bytes.Equal(before.Text, outcome.Document.Text) {
		t.Errorf("restored text (-before +after):\n%s", cmp.Diff(string(before.Text), string(outcome.Document.Text)))
	}
}

// onlyAdds reports whether all lines of the one text are in the other, in
// their order.
func onlyAdds(before, after []byte) bool {
	rest := slices.Collect(bytes.Lines(after))
	for line := range bytes.Lines(before) {
		i := slices.IndexFunc(rest, func(l []byte) bool { return bytes.Equal(l, line) })
		if i < 0 {
			return false
		}
		rest = rest[i+1:]
	}
	return true
}

// checkDiff holds that the diff applies, and that it takes nothing away where
// the pod was plain YAML without a proxy.
func checkDiff(t *testing.T, before, after []manifest.Document, isJSON bool) {
	t.Helper()
	diff, err := manifest.Diff("file", "injected", before, after)
	if err != nil {
		t.Fatal(err)
	}
	from, to := before[0].Text, after[0].Text
	got := applyDiff(t, string(diff), string(from))
	if isJSON {
		if difference := cmp.Diff(value(t, after[0]), value(t, split(t, []byte(got))[0])); difference != "" || !json.Valid([]byte(got)) {
			t.Errorf("the diff does not make the one of the other (-want +got):\n%s", difference)
		}
		return
	}
	if got != string(to) {
		t.Errorf("the diff does not make the one of the other (-want +got):\n%s", cmp.Diff(string(to), got))
	}
	if addsOnly(from) {
		checkOnlyAdds(t, diff, from, to)
	}
}

// checkOnlyAdds holds that no line is gone.
func checkOnlyAdds(t *testing.T, diff, from, to []byte) {
	t.Helper()
	if !onlyAdds(from, to) {
		t.Error("a line is gone, or stands elsewhere")
	}
	if bytes.Contains(to, []byte(`"containers":["shunt-proxy"]`)) {
		return // a container that goes before others of the same words is not told from them line by line
	}
	for line := range strings.Lines(string(diff)) {
		if strings.HasPrefix(line, "-") && !strings.HasPrefix(line, "---") {
			t.Errorf("the diff takes a line away: %s", line)
		}
	}
}

// addsOnly reports whether injection takes no line out of the text: there is
// nothing in it that injection puts something else in the place of.
func addsOnly(text []byte) bool {
	for _, replaced := range []string{
		"initContainers: []", podplan.StatusKey, "\nvolumes:", "metadata: {}",
		"tcpSocket:", // in whose place shunt-init asks
	} {
		if bytes.Contains(text, []byte(replaced)) {
			return false
		}
	}
	// The resources of a pod as a whole are raised. They stand beside its containers.
	for _, found := range resources.FindAllSubmatch(text, -1) {
		if bytes.Contains(text, slices.Concat([]byte("\n"), found[1], []byte("containers:"))) {
			return false
		}
	}
	return true
}

var resources = regexp.MustCompile(`(?m)^( *)resources:$`)

var hunk = regexp.MustCompile(`^@@ -(\d+)`)

// applyDiff does what patch(1) does with a unified diff.
func applyDiff(t *testing.T, diff, from string) string {
	t.Helper()
	var to strings.Builder
	rest := strings.SplitAfter(from, "\n")
	line := 1
	next := func() (text string) {
		text, rest = rest[0], rest[1:]
		line++
		return text
	}
	// A line without an end is marked as one.
	lines := strings.SplitAfter(strings.ReplaceAll(diff, "\n\\ No newline at end of file\n", "\x00\n"), "\n")
	for _, change := range lines[2:] {
		change = strings.Replace(change, "\x00\n", "", 1)
		start := hunk.FindStringSubmatch(change)
		switch {
		case start != nil:
			first, err := strconv.Atoi(start[1])
			if err != nil {
				t.Fatal(err)
			}
			for line < first {
				to.WriteString(next())
			}
		case strings.HasPrefix(change, "+"):
			to.WriteString(change[1:])
		case strings.HasPrefix(change, " "), strings.HasPrefix(change, "-"):
			was := next()
			if was != change[1:] {
				t.Fatalf("line %d is %q, but the diff says %q", line-1, was, change)
			}
			if change[0] == ' ' {
				to.WriteString(was)
			}
		}
	}
	return to.String() + strings.Join(rest, "")
}

func split(t *testing.T, text []byte) []manifest.Document {
	t.Helper()
	docs := manifest.Split("file", text)
	if len(docs) != 1 {
		t.Fatalf("%d documents, want one of:\n%s", len(docs), text)
	}
	return docs
}

func podIn(t *testing.T, text []byte, path []string) *corev1.Pod {
	t.Helper()
	var object map[string]any
	if err := yaml.Unmarshal(text, &object); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	for _, key := range path {
		object, _ = object[key].(map[string]any)
	}
	inner, err := yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{}
	if err := yaml.UnmarshalStrict(inner, pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

// TestSplit holds what the place of a document means and where its text ends.
func TestSplit(t *testing.T) {
	for _, test := range []struct {
		name, text string
		docs       []string // number and text
	}{
		{"empty file", "", nil},
		{"one", "a: 1\n", []string{"1 a: 1\n"}},
		{"no line end", "a: 1", []string{"1 a: 1"}},
		{"separator first", "---\na: 1\n", []string{"1 ---\na: 1\n"}},
		{"comment first", "# c\n---\na: 1\n", []string{"0 # c\n", "1 ---\na: 1\n"}},
		{
			"nothing between", "a: 1\n---\n---\n# c\n\n--- # d\nb: 2\n",
			[]string{"1 a: 1\n", "1 ---\n", "1 ---\n# c\n\n", "2 --- # d\nb: 2\n"},
		},
		{"content beside the separator", "--- {a: 1}\n--- {b: 1}\n", []string{"1 --- {a: 1}\n", "2 --- {b: 1}\n"}},
		{"not a separator", "a: |\n  ---\n---b: 1\n", []string{"1 a: |\n  ---\n---b: 1\n"}},
		{"directive", "%YAML 1.1\n# c\n---\na: 1\n", []string{"1 %YAML 1.1\n# c\n---\na: 1\n"}},
		{"json row", "{\"a\":1} \n{\"b\":\n2}", []string{"1 {\"a\":1} \n", "2 {\"b\":\n2}"}},
		{"flow style is no json", "{a: 1}\n---\n{b: 2}\n", []string{"1 {a: 1}\n", "2 ---\n{b: 2}\n"}},
		{"windows line ends", "a: 1\r\n---\r\nb: 2\r\n", []string{"1 a: 1\r\n", "2 ---\r\nb: 2\r\n"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			docs := manifest.Split("file", []byte(test.text))
			var got []string
			for _, doc := range docs {
				got = append(got, fmt.Sprintf("%d %s", doc.Number, doc.Text))
			}
			if diff := cmp.Diff(test.docs, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestJoin holds that documents of several files stay apart.
func TestJoin(t *testing.T) {
	docs := []manifest.Document{{Text: []byte("a: 1")}, {Text: []byte("# c\n---\nb: 1\n")}, {Text: []byte("# d\nc: 1\n")}}
	if got, want := string(manifest.Join(docs)), "a: 1\n# c\n---\nb: 1\n---\n# d\nc: 1\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestWindowsLineEnds holds that such a file is injected at all; it is printed
// anew, with line ends of the one kind.
func TestWindowsLineEnds(t *testing.T) {
	doc := split(t, []byte("apiVersion: v1\r\nkind: Pod\r\nspec:\r\n  containers:\r\n  - name: app\r\n"))[0]
	outcome, err := manifest.Injector{Config: config.Default(), Namespace: "default"}.Inject(doc)
	if err != nil {
		t.Fatal(err)
	}
	pod := podIn(t, outcome.Document.Text, nil)
	if len(pod.Spec.InitContainers) != 2 || bytes.Contains(outcome.Document.Text, []byte("\r")) {
		t.Errorf("not injected:\n%q", outcome.Document.Text)
	}
}

// value is what a document says. A list or map that is empty, or null, is as
// good as none: of such the original is not known any more.
func value(t *testing.T, doc manifest.Document) any {
	t.Helper()
	text, err := doc.JSON()
	if err != nil {
		return string(doc.Text) // what cannot be read is not changed either
	}
	var value any
	if len(text) > 0 {
		if err := json.Unmarshal(text, &value); err != nil {
			t.Fatal(err)
		}
	}
	return withoutEmpty(value)
}

func withoutEmpty(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for key, inner := range value {
			if value[key] = withoutEmpty(inner); value[key] == nil {
				delete(value, key)
			}
		}
		if len(value) == 0 {
			return nil
		}
	case []any:
		for i, inner := range value {
			value[i] = withoutEmpty(inner)
		}
		if len(value) == 0 {
			return nil
		}
	}
	return value
}

// FuzzInject holds that no text makes it panic, that injecting twice is as
// good as once, and that what was injected is given back.
func FuzzInject(f *testing.F) {
	for _, seed := range []string{
		"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: app\n",
		"apiVersion: v1\nkind: List\nitems:\n- &a {apiVersion: v1, kind: Pod, spec: {}}\n- *a\n",
		"a: &x {<<: *x}", "{\"kind\":\"Pod\",\"apiVersion\":\"v1\"}{}", "%YAML 1.1\n---\n",
		"apiVersion: v1\nkind: Pod\nextra: {a, b: , c: [d, ]}\nmetadata: {}\nspec: {containers: null}\n",
		"kind: Pod\napiVersion: v1\nspec: {initContainers: [{name: x}, x]}",
	} {
		f.Add([]byte(seed))
	}
	injector := manifest.Injector{Config: config.Default(), Namespace: "default"}
	f.Fuzz(func(t *testing.T, text []byte) {
		docs := manifest.Split("file", text)
		for _, doc := range docs {
			outcome, err := injector.Inject(doc)
			if err != nil {
				continue
			}
			again, err := injector.Inject(outcome.Document)
			if err != nil || !bytes.Equal(again.Document.Text, outcome.Document.Text) {
				t.Errorf("a second time: %v\n%s\n%s", err, outcome.Document.Text, again.Document.Text)
			}
			if bytes.Equal(outcome.Document.Text, doc.Text) {
				continue
			}
			restored, err := manifest.Restorer{Namespace: "default"}.Restore(outcome.Document)
			if err != nil {
				t.Errorf("restored: %v\n%s", err, outcome.Document.Text)
			}
			if !bytes.Contains(text, []byte("status")) && !reflect.DeepEqual(value(t, doc), value(t, restored.Document)) {
				t.Errorf("restored, it means something else:\n%s\n%s", doc.Text, restored.Document.Text)
			}
		}
	})
}
