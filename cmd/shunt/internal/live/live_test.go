package live_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
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

	"github.com/shunt-dev/shunt/cmd/shunt/internal/check"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/live"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/test/clustertest"
)

var update = flag.Bool("update", false, "rewrite the wanted parts of testdata/cases")

const shipped = "../../../../config/"

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

const configType = "apiVersion: shunt.dev/v1alpha1\nkind: InjectorConfiguration\n"

// snapshot returns the cluster of a case: with the manifests that ship, and
//
//	injected.yaml   pods to add with the proxy, put in by injected-by.yaml
//	change.yaml     objects to merge into those, or to add
//	in-force.yaml   the configuration that a replica answers with; without it the ConfigMap's
//	unread          why the installation cannot be read
func snapshot(t *testing.T, files map[string]string) check.Snapshot {
	t.Helper()
	o := clustertest.Objects{}
	for _, file := range []string{"webhook/manifests.yaml", "webhook/service.yaml", "manager/manager.yaml", "manager/namespace.yaml"} {
		o.PutAll(t, read(t, shipped+file))
	}
	settings := configType + "initImage: shunt-init:dev\n"
	text, err := json.Marshal(map[string]any{
		"kind": "ConfigMap", "metadata": map[string]any{"namespace": "shunt-system", "name": "shunt-injector"},
		"data": map[string]string{"config.yaml": settings},
	})
	if err != nil {
		t.Fatal(err)
	}
	o.PutAll(t, text)
	o.PutAll(t, []byte("kind: Namespace\nmetadata: {name: shop, labels: {istio-injection: enabled}}"))
	o.PutInjected(t, []byte(files["injected.yaml"]), []byte(configType+cmp.Or(files["injected-by.yaml"], "initImage: shunt-init:dev")))
	o.PutAll(t, []byte(files["change.yaml"]))
	s := check.Snapshot{
		NativeSidecars: true, Unread: map[string]error{},
		Namespaces: clustertest.Of[corev1.Namespace](t, o, "Namespace"), Pods: clustertest.Of[corev1.Pod](t, o, "Pod"),
	}
	if text := strings.TrimSpace(files["unread"]); text != "" {
		s.Unread["mutatingwebhookconfigurations.admissionregistration.k8s.io"] = errors.New(text)
		return s
	}
	s.Webhooks = clustertest.Of[admissionregistrationv1.MutatingWebhookConfiguration](t, o, "MutatingWebhookConfiguration")
	s.Services, s.Deployments = clustertest.Of[corev1.Service](t, o, "Service"), clustertest.Of[appsv1.Deployment](t, o, "Deployment")
	s.ConfigMaps = clustertest.Of[corev1.ConfigMap](t, o, "ConfigMap")
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
