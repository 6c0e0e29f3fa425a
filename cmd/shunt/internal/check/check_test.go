package check_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
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
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/check"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/test/clustertest"
)

var update = flag.Bool("update", false, "rewrite the wanted parts of testdata/cases")

// now is the time in all cases; the certificates in testdata are made for it.
var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// address is that of the webhook in the manifests that ship.
const address = "shunt-webhook.shunt-system.svc:443"

func read(t *testing.T, path ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// asItShips returns a cluster with the manifests of config/, and a namespace that asks for the
// proxy.
func asItShips(t *testing.T) clustertest.Objects {
	t.Helper()
	const config = "../../../../config"
	shipped := clustertest.Objects{}
	for _, file := range []string{"webhook/manifests.yaml", "webhook/service.yaml", "manager/manager.yaml", "manager/namespace.yaml"} {
		shipped.PutAll(t, read(t, config, file))
	}
	encode := func(value any) []byte {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	type object = map[string]any
	shipped.Put(t, encode(object{
		"kind": "ConfigMap", "metadata": object{"namespace": "shunt-system", "name": "shunt-injector"},
		"data": object{"config.yaml": string(read(t, config, "manager/config.yaml"))},
	}))
	shipped.Put(t, encode(object{
		"kind": "Deployment", "metadata": object{"namespace": "shunt-system", "name": "shunt-webhook"},
		"status": object{"availableReplicas": 2, "updatedReplicas": 2},
	}))
	shipped.Put(t, encode(object{
		"kind": "Namespace", "metadata": object{"name": "shop", "labels": object{annotation.NamespaceInjectionKey: "enabled"}},
	}))
	var webhooks []object
	configurations := clustertest.Of[admissionregistrationv1.MutatingWebhookConfiguration](t, shipped, "MutatingWebhookConfiguration")
	for _, w := range configurations[0].Webhooks {
		webhooks = append(webhooks, object{
			"name": w.Name, "clientConfig": object{"caBundle": read(t, "testdata/certificates/ca.pem")},
		})
	}
	shipped.Put(t, encode(object{"kind": "MutatingWebhookConfiguration", "metadata": object{"name": "shunt"}, "webhooks": webhooks}))
	return shipped
}

// snapshot returns the cluster of a case's files.
func snapshot(t *testing.T, archive *txtar.Archive) check.Snapshot {
	t.Helper()
	c := asItShips(t)
	s := check.Snapshot{
		Now: now, Certificates: map[string]check.Served{address: {From: "served by Pod shunt-system/shunt-webhook-1"}},
	}
	chain, files := "good", texts(archive)
	if served, ok := files["certificate"]; ok {
		chain = strings.TrimSpace(served)
	}
	if problem, ok := files["certificate-problem"]; ok {
		s.Certificates[address] = check.Served{Problem: strings.TrimSpace(problem)}
	} else {
		served := s.Certificates[address]
		served.Chain = read(t, "testdata/certificates", chain+".pem")
		s.Certificates[address] = served
	}
	if text, ok := files["injected.yaml"]; ok {
		by := []byte(clustertest.Of[corev1.ConfigMap](t, c, "ConfigMap")[0].Data["config.yaml"])
		if config, ok := files["injected-by.yaml"]; ok {
			by = []byte(config)
		}
		c.PutInjected(t, []byte(text), by)
	}
	c.PutAll(t, []byte(files["change.yaml"]))
	if name, ok := files["ca-bundle"]; ok {
		setBundle(t, c, strings.TrimSpace(name))
	}
	if config, ok := files["config.yaml"]; ok { // of --config
		cfg, err := inject.ParseConfig([]byte(config))
		if err != nil {
			t.Fatal(err)
		}
		s.Config = &cfg
	}
	_, older := files["older-api-server"]
	s.NativeSidecars = !older
	s.Webhooks = clustertest.Of[admissionregistrationv1.MutatingWebhookConfiguration](t, c, "MutatingWebhookConfiguration")
	s.Services, s.Deployments = clustertest.Of[corev1.Service](t, c, "Service"), clustertest.Of[appsv1.Deployment](t, c, "Deployment")
	s.ConfigMaps, s.Namespaces = clustertest.Of[corev1.ConfigMap](t, c, "ConfigMap"), clustertest.Of[corev1.Namespace](t, c, "Namespace")
	s.Pods, s.Events = clustertest.Of[corev1.Pod](t, c, "Pod"), clustertest.Of[corev1.Event](t, c, "Event")
	s.HomePods = slices.DeleteFunc(slices.Clone(s.Pods), func(pod corev1.Pod) bool { return pod.Namespace != "shunt-system" })
	s.Agents = agents(t, c)
	if problem, ok := files["agents-unread"]; ok {
		s.Agents = check.Agents{Unread: errors.New(strings.TrimSpace(problem))}
	}
	for _, made := range workloads(t, c) {
		s.Workloads = append(s.Workloads, check.NewWorkload(made))
	}
	for _, line := range strings.Fields(files["unread"]) {
		if s.Unread == nil {
			s.Unread = map[string]error{}
		}
		s.Unread[line] = errors.New(line + " is forbidden")
	}
	s.Replicas = replicas(t, s, files)
	return s
}

// agents returns what there is of shunt-node.
func agents(t *testing.T, c clustertest.Objects) (found check.Agents) {
	t.Helper()
	for _, o := range clustertest.Of[appsv1.DaemonSet](t, c, "DaemonSet") {
		if o.Labels["app.kubernetes.io/name"] == check.AgentName {
			found.DaemonSets = append(found.DaemonSets, o)
		}
	}
	for _, o := range clustertest.Of[corev1.Pod](t, c, "Pod") {
		if o.Labels["app.kubernetes.io/name"] == check.AgentName {
			found.Pods = append(found.Pods, o)
		}
	}
	return found
}

// workloads returns what makes pods.
func workloads(t *testing.T, c clustertest.Objects) []metav1.Object {
	t.Helper()
	var all []metav1.Object
	for _, o := range clustertest.Of[appsv1.Deployment](t, c, "Deployment") {
		all = append(all, &o)
	}
	for _, o := range clustertest.Of[appsv1.ReplicaSet](t, c, "ReplicaSet") {
		if metav1.GetControllerOf(&o) == nil {
			all = append(all, &o)
		} else { // of which package cluster reads only this
			all = append(all, &metav1.PartialObjectMetadata{ObjectMeta: o.ObjectMeta})
		}
	}
	for _, o := range clustertest.Of[corev1.ReplicationController](t, c, "ReplicationController") {
		all = append(all, &o)
	}
	for _, o := range clustertest.Of[appsv1.StatefulSet](t, c, "StatefulSet") {
		all = append(all, &o)
	}
	for _, o := range clustertest.Of[appsv1.DaemonSet](t, c, "DaemonSet") {
		all = append(all, &o)
	}
	for _, o := range clustertest.Of[batchv1.Job](t, c, "Job") {
		all = append(all, &o)
	}
	for _, o := range clustertest.Of[batchv1.CronJob](t, c, "CronJob") {
		all = append(all, &o)
	}
	return all
}

// replicas are the answers of the webhook's pods: those of the case, or of two pods that have read
// the ConfigMap, if it is good.
func replicas(t *testing.T, s check.Snapshot, files map[string]string) []check.Replica {
	t.Helper()
	answer := func(name, text string) check.Replica {
		cfg, err := inject.ParseConfig([]byte(text))
		if err != nil {
			return check.Replica{Namespace: "shunt-system", Service: "shunt-webhook", Pod: name, Problem: "connection refused"}
		}
		encoded, err := config.Encode(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return check.Replica{Namespace: "shunt-system", Service: "shunt-webhook", Pod: name, InForce: config.InForce{
			Version: "v0.1.0", Revision: cfg.Revision, Since: metav1.NewTime(now.Add(-time.Hour)), NativeSidecars: s.NativeSidecars,
			Configuration: encoded,
		}}
	}
	if text, ok := files["replicas.yaml"]; ok {
		var given []struct {
			Pod, Configuration, Version, Error, Problem string

			Since metav1.Time
		}
		if err := yaml.UnmarshalStrict([]byte(text), &given); err != nil {
			t.Fatal(err)
		}
		var all []check.Replica
		for _, g := range given {
			r := answer(g.Pod, "apiVersion: shunt.dev/v1alpha1\nkind: InjectorConfiguration\n"+g.Configuration)
			r.InForce.Version, r.InForce.Since = cmp.Or(g.Version, r.InForce.Version), cmp.Or(g.Since, r.InForce.Since)
			r.InForce.Error, r.Problem = g.Error, g.Problem
			all = append(all, r)
		}
		return all
	}
	text := ""
	for _, m := range s.ConfigMaps {
		text = m.Data["config.yaml"]
	}
	return []check.Replica{answer("shunt-webhook-1", text), answer("shunt-webhook-2", text)}
}

// setBundle makes the first webhook trust the named authority.
func setBundle(t *testing.T, c clustertest.Objects, name string) {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"kind": "MutatingWebhookConfiguration", "metadata": map[string]any{"name": "shunt"},
		"webhooks": []any{map[string]any{
			"name": "namespace.shunt.dev", "clientConfig": map[string]any{"caBundle": read(t, "testdata/certificates", name+".pem")},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Put(t, text)
}

func texts(archive *txtar.Archive) map[string]string {
	all := map[string]string{}
	for _, f := range archive.Files {
		all[f.Name] = string(f.Data)
	}
	return all
}

// TestCases compares findings. A case is what differs from a cluster with the manifests that ship.
//
//	change.yaml          objects to merge into those, or to add
//	injected.yaml        pods to add with the proxy, put in by injected-by.yaml or the configuration that ships
//	certificate          which of testdata/certificates is served; certificate-problem is why there is none
//	ca-bundle            which of them the first webhook trusts
//	config.yaml          the file of --config
//	agents-unread        why shunt-node's objects cannot be listed
//	unread               resources that the user may not read, one a line
//	replicas.yaml        what the webhook's pods answer; without it two that have read the ConfigMap
//	older-api-server     the API server does not know native sidecars
//	findings             one a line
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
			var got strings.Builder
			for _, f := range check.Run(snapshot(t, archive)) {
				fmt.Fprintf(&got, "%s %s %s: %s\n", f.Level, f.Kind, f.Object, f.Message)
			}
			if *update {
				archive.Files = append(slices.DeleteFunc(archive.Files, func(f txtar.File) bool { return f.Name == "findings" }),
					txtar.File{Name: "findings", Data: []byte(got.String())})
				if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := gocmp.Diff(texts(archive)["findings"], got.String()); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

// TestEveryKindHasACase checks that each kind of finding has a case with OK or with the opposite,
// and that the documentation names it.
func TestEveryKindHasACase(t *testing.T) {
	files, err := filepath.Glob("testdata/cases/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		all.Write(read(t, file))
	}
	page := string(read(t, "../../../../docs/cli.md"))
	for _, kind := range check.Kinds() {
		for _, level := range kind.Levels {
			if !strings.Contains(all.String(), fmt.Sprintf("\n%s %s ", level, kind.Kind)) {
				t.Errorf("no case has %s of %s", level, kind.Kind)
			}
		}
		var words []string
		for _, level := range kind.Levels {
			words = append(words, string(level))
		}
		if row := "| `" + string(kind.Kind) + "` | " + strings.Join(words, ", ") + " |"; !strings.Contains(page, row) {
			t.Errorf("docs/cli.md has no row %s", row)
		}
	}
}

// TestTargets checks which certificates have to be fetched.
func TestTargets(t *testing.T) {
	snapshot := snapshot(t, &txtar.Archive{})
	ready := corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	var home []corev1.Pod
	for _, text := range []string{
		`{metadata: {name: ready, namespace: shunt-system, labels: {app.kubernetes.io/name: shunt-webhook}}}`,
		`{metadata: {name: another, namespace: shunt-system, labels: {app.kubernetes.io/name: another}}}`,
		`{metadata: {name: elsewhere, namespace: shop, labels: {app.kubernetes.io/name: shunt-webhook}}}`,
	} {
		pod := corev1.Pod{Status: ready}
		if err := yaml.Unmarshal([]byte(text), &pod); err != nil {
			t.Fatal(err)
		}
		home = append(home, pod)
	}
	unready := *home[0].DeepCopy()
	unready.Name, unready.Status = "unready", corev1.PodStatus{}
	want := []check.Target{{
		Name: address, Namespace: "shunt-system", Pods: []string{"ready"}, Port: 9443, Secret: "shunt-webhook-cert",
	}}
	snapshot.HomePods = slices.Concat(home, []corev1.Pod{unready})
	if diff := gocmp.Diff(want, snapshot.Targets()); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
	if diff := gocmp.Diff([]string{"shunt-system"}, check.Homes(snapshot.Webhooks)); diff != "" {
		t.Errorf("homes (-want +got):\n%s", diff)
	}
	for given, name := range map[string]string{"https://10.0.0.1:8443/x": "10.0.0.1:8443", "https://shunt.example/x": "shunt.example:443"} {
		for i := range snapshot.Webhooks[0].Webhooks {
			snapshot.Webhooks[0].Webhooks[i].ClientConfig = admissionregistrationv1.WebhookClientConfig{URL: &given}
		}
		if diff := gocmp.Diff([]check.Target{{Name: name, Direct: true}}, snapshot.Targets()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", given, diff)
		}
	}
}
