package live_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/check"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/live"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
)

var update = flag.Bool("update", false, "rewrite the wanted parts of testdata/cases")

const shipped = "../../../../config/"

// objects are those of a cluster, by kind, namespace and name.
type objects map[string]json.RawMessage

func patchType(kind string) any {
	switch kind {
	case "MutatingWebhookConfiguration":
		return admissionregistrationv1.MutatingWebhookConfiguration{}
	case "Deployment":
		return appsv1.Deployment{}
	case "Service":
		return corev1.Service{}
	case "ConfigMap":
		return corev1.ConfigMap{}
	case "Namespace":
		return corev1.Namespace{}
	default:
		return corev1.Pod{}
	}
}

// merge puts documents over the objects that they name, like kubectl patch; with
// $patch: delete it takes them away.
func (o objects) merge(t *testing.T, text []byte) {
	t.Helper()
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		var document json.RawMessage
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		var head struct {
			Kind     string
			Metadata struct{ Namespace, Name string }
			Patch    string `json:"$patch"`
		}
		if err := json.Unmarshal(document, &head); err != nil {
			t.Fatal(err)
		}
		key := head.Kind + "/" + head.Metadata.Namespace + "/" + head.Metadata.Name
		if head.Patch == "delete" {
			delete(o, key)
			continue
		}
		before := o[key]
		if before == nil {
			before = json.RawMessage("{}")
		}
		if o[key], err = strategicpatch.StrategicMergePatch(before, document, patchType(head.Kind)); err != nil {
			t.Fatal(err)
		}
	}
}

func of[T any](t *testing.T, o objects, kind string) []T {
	t.Helper()
	var all []T
	for _, key := range slices.Sorted(maps.Keys(o)) {
		if !strings.HasPrefix(key, kind+"/") {
			continue
		}
		var object T
		if err := json.Unmarshal(o[key], &object); err != nil {
			t.Fatal(err)
		}
		all = append(all, object)
	}
	return all
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

const configType = "apiVersion: shunt.dev/v1alpha1\nkind: InjectorConfiguration\n"

// put has the pods of a case injected, and adds them.
func (o objects) put(t *testing.T, pods, by string) {
	t.Helper()
	cfg, err := inject.ParseConfig([]byte(configType + cmp.Or(by, "initImage: shunt-init:dev")))
	if err != nil {
		t.Fatal(err)
	}
	given := objects{}
	given.merge(t, []byte(pods))
	for _, pod := range of[corev1.Pod](t, given, "Pod") {
		asking := annotation.Namespace{Name: pod.Namespace, Labels: map[string]string{annotation.RevisionKey: cfg.Revision}}
		result := inject.NewInjector(cfg).OfVersion("v0.1.0").Inject(&pod, asking)
		if !result.Inject {
			t.Fatalf("%s: %s %v", pod.Name, result.Reason, result.Errors)
		}
		result.Pod.Kind = "Pod"
		text, err := json.Marshal(result.Pod)
		if err != nil {
			t.Fatal(err)
		}
		o.merge(t, text)
	}
}

// snapshot returns the cluster of a case: with the manifests that ship, and
//
//	injected.yaml   pods to add with the proxy, put in by injected-by.yaml
//	change.yaml     objects to merge into those, or to add
//	in-force.yaml   the configuration that a replica answers with; without it the ConfigMap's
//	unread          why the installation cannot be read
func snapshot(t *testing.T, files map[string]string) check.Snapshot {
	t.Helper()
	o := objects{}
	for _, file := range []string{"webhook/manifests.yaml", "webhook/service.yaml", "manager/manager.yaml", "manager/namespace.yaml"} {
		o.merge(t, read(t, shipped+file))
	}
	settings := configType + "initImage: shunt-init:dev\n"
	text, err := json.Marshal(map[string]any{
		"kind": "ConfigMap", "metadata": map[string]any{"namespace": "shunt-system", "name": "shunt-injector"},
		"data": map[string]string{"config.yaml": settings},
	})
	if err != nil {
		t.Fatal(err)
	}
	o.merge(t, text)
	o.merge(t, []byte("kind: Namespace\nmetadata: {name: shop, labels: {istio-injection: enabled}}"))
	o.put(t, files["injected.yaml"], files["injected-by.yaml"])
	o.merge(t, []byte(files["change.yaml"]))
	s := check.Snapshot{
		NativeSidecars: true, Unread: map[string]error{},
		Namespaces: of[corev1.Namespace](t, o, "Namespace"), Pods: of[corev1.Pod](t, o, "Pod"),
	}
	if text := strings.TrimSpace(files["unread"]); text != "" {
		s.Unread["mutatingwebhookconfigurations.admissionregistration.k8s.io"] = errors.New(text)
		return s
	}
	s.Webhooks = of[admissionregistrationv1.MutatingWebhookConfiguration](t, o, "MutatingWebhookConfiguration")
	s.Services, s.Deployments = of[corev1.Service](t, o, "Service"), of[appsv1.Deployment](t, o, "Deployment")
	s.ConfigMaps = of[corev1.ConfigMap](t, o, "ConfigMap")
	if in, given := files["in-force.yaml"]; given {
		settings = configType + in
	}
	cfg, err := inject.ParseConfig([]byte(settings))
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := config.Encode(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Replicas = []check.Replica{{Namespace: "shunt-system", Service: "shunt-webhook", Pod: "shunt-webhook-1", InForce: config.InForce{
		Version: "v0.1.0", Revision: cfg.Revision, NativeSidecars: true, Configuration: encoded,
		Since: metav1.NewTime(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)),
	}}}
	return s
}

// explained prints an explanation; of the settings only those that are set.
func explained(e live.Explanation) string {
	var text strings.Builder
	for _, line := range e.Lines("") {
		fmt.Fprintf(&text, "%s: %s\n", line[0], line[1])
	}
	for _, rows := range [][][]string{e.ChangeCells(), e.ContainerCells()} {
		for _, row := range rows {
			fmt.Fprintf(&text, "| %s\n", strings.Join(row, " | "))
		}
	}
	for _, s := range e.Settings {
		if !slices.Equal(s.From, []string{"default"}) {
			fmt.Fprintf(&text, "%s = %s, from %s\n", s.Name, s.Value, strings.Join(s.From, ", "))
		}
	}
	return text.String()
}

// TestCases compares what is said of each pod of a case, and of all of them.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/cases/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d cases, error %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			given := map[string]string{}
			for _, f := range archive.Files {
				given[f.Name] = string(f.Data)
			}
			s := snapshot(t, given)
			got := map[string]string{}
			var all strings.Builder
			for i := range s.Pods {
				fmt.Fprintf(&all, "%s\n", explained(live.Explain(s, &s.Pods[i])))
			}
			got["explain"] = all.String()
			all.Reset()
			for _, row := range live.List(s, false) {
				fmt.Fprintf(&all, "%s\n", strings.Join(row.Cells(), " | "))
			}
			for _, line := range slices.Concat(live.Unknowns(s), live.Restarts(live.List(s, false), " --context x")) {
				fmt.Fprintln(&all, line)
			}
			got["list"] = all.String()
			if *update {
				archive.Files = slices.DeleteFunc(archive.Files, func(f txtar.File) bool { _, wanted := got[f.Name]; return wanted })
				for _, name := range slices.Sorted(maps.Keys(got)) {
					archive.Files = append(archive.Files, txtar.File{Name: name, Data: []byte(got[name])})
				}
				if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			for name, text := range got {
				if diff := gocmp.Diff(given[name], text); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
			}
		})
	}
}
