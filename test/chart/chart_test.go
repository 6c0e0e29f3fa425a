package chart

import (
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const (
	folder = "../../charts/shunt"
	// namespace is the one that the manifests name.
	namespace = "shunt-system"
)

// objects are by kind and name.
type objects map[string]map[string]any

func (o objects) add(t *testing.T, document []byte) {
	t.Helper()
	var object map[string]any
	if err := yaml.UnmarshalStrict(document, &object); err != nil {
		t.Fatalf("%v in\n%s", err, document)
	}
	if len(object) == 0 {
		return
	}
	metadata, _ := object["metadata"].(map[string]any)
	name := object["kind"].(string) + " " + metadata["name"].(string)
	if _, twice := o[name]; twice {
		t.Errorf("%s is there twice", name)
	}
	// A configuration is what it says, and not how it is written down.
	if data, is := object["data"].(map[string]any); is && data["config.yaml"] != nil {
		var configuration map[string]any
		if err := yaml.UnmarshalStrict([]byte(data["config.yaml"].(string)), &configuration); err != nil {
			t.Fatal(err)
		}
		data["config.yaml"] = configuration
	}
	o[name] = object
}

// rendered are the chart's objects with values over its own.
func rendered(t *testing.T, values string) (objects, error) {
	t.Helper()
	return renderedFor(t, "v1.30.0-vendor.1", namespace, values)
}

// renderedFor are those for a version of Kubernetes, and in a namespace.
func renderedFor(t *testing.T, version, namespace, values string) (objects, error) {
	t.Helper()
	chart, err := loader.LoadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	given, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		t.Fatal(err)
	}
	release := chartutil.ReleaseOptions{Name: "mesh", Namespace: namespace, Revision: 1, IsInstall: true}
	capabilities := chartutil.DefaultCapabilities.Copy()
	kubernetes, err := chartutil.ParseKubeVersion(version)
	if err != nil {
		t.Fatal(err)
	}
	capabilities.KubeVersion = *kubernetes
	all, err := chartutil.ToRenderValues(chart, given, release, capabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(chart, all)
	if err != nil {
		return nil, err
	}
	found := objects{}
	for name, text := range files {
		if path.Ext(name) != ".yaml" {
			continue
		}
		for document := range strings.SplitSeq("\n"+text, "\n---\n") {
			found.add(t, []byte(document))
		}
	}
	return found, nil
}

// built are the objects that kustomize builds.
func built(t *testing.T, name string) objects {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "../../config/"+name)
	if err != nil {
		t.Fatal(err)
	}
	found := objects{}
	for _, resource := range resources.Resources() {
		text, err := resource.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		found.add(t, text)
	}
	return found
}

// TestSameObjects holds that chart and manifests are the same Shunt. Only the
// namespace is not the chart's to make: Helm keeps the release in it.
func TestSameObjects(t *testing.T) {
	for name, values := range map[string]string{
		"default":                  "",
		"self-signed":              "certificates: self-signed",
		"overlays/namespaces-only": "webhooks: {namespacesOnly: true}",
		"overlays/all-pods":        "webhooks: {allPods: true}",
		"overlays/revision":        "revision: canary",
		"overlays/prometheus":      "prometheus: {enabled: true}",
	} {
		t.Run(name, func(t *testing.T) {
			want, namespace := built(t, name), namespace
			if name == "overlays/revision" {
				namespace = "shunt-canary"
			}
			delete(want, "Namespace "+namespace)
			got, err := renderedFor(t, "v1.30.0-vendor.1", namespace, values)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("objects (-kustomize +chart):\n%s", diff)
			}
		})
	}
}

// TestNode holds that the chart's agent is that of config/node, beside the rest.
func TestNode(t *testing.T) {
	want := built(t, "default")
	delete(want, "Namespace "+namespace)
	maps.Copy(want, built(t, "node"))
	got, err := rendered(t, "node: {enabled: true}")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("objects (-kustomize +chart):\n%s", diff)
	}
}

// TestOwnOverlay holds that the sample of an overlay names the images where they are named, and changes nothing else.
func TestOwnOverlay(t *testing.T) {
	want := built(t, "default")
	text, err := yaml.Marshal(want["Deployment shunt-webhook"])
	if err != nil {
		t.Fatal(err)
	}
	var deployment map[string]any
	renamed := strings.Replace(string(text), "image: shunt-webhook:dev\n", "image: registry.example/shunt-webhook:v0.1.0\n", 1)
	if err := yaml.Unmarshal([]byte(renamed), &deployment); err != nil || renamed == string(text) {
		t.Fatalf("error %v in\n%s", err, renamed)
	}
	want["Deployment shunt-webhook"] = deployment
	want["ConfigMap shunt-injector"]["data"] = map[string]any{"config.yaml": map[string]any{
		"apiVersion": "shunt.dev/v1alpha1", "kind": "InjectorConfiguration", "initImage": "registry.example/shunt-init:v0.1.0",
	}}
	if diff := cmp.Diff(want, built(t, "samples/overlay")); diff != "" {
		t.Errorf("objects (-default with other names +overlay):\n%s", diff)
	}
}

// TestNoPolicies holds that the chart can be installed where the API server has no policies.
func TestNoPolicies(t *testing.T) {
	for version, want := range map[string]int{"v1.29.14": 0, "v1.30.0": 4, "v1.36.3+k3s1": 4} {
		got, err := renderedFor(t, version, namespace, "")
		if err != nil {
			t.Fatal(err)
		}
		count := 0
		for name := range got {
			if strings.HasPrefix(name, "ValidatingAdmissionPolicy") {
				count++
			}
		}
		if count != want {
			t.Errorf("%s: %d policies and bindings, want %d", version, count, want)
		}
	}
}

// TestForbiddenOptOut holds that the webhooks send the pods that a configuration
// wants to be denied, and each of them to one webhook only.
func TestForbiddenOptOut(t *testing.T) {
	const values = "injector: {forbiddenAnnotations: [sidecar.istio.io/inject]}\n"
	webhooks := func(of objects) map[string]any {
		found := map[string]any{}
		for _, webhook := range of["MutatingWebhookConfiguration shunt"]["webhooks"].([]any) {
			found[webhook.(map[string]any)["name"].(string)] = webhook
		}
		return found
	}
	got, err := rendered(t, values)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	above, err := filepath.Rel(folder, filepath.Join(here, "../../config"))
	if err != nil {
		t.Fatal(err)
	}
	manifest := "resources: [" + above + "/default]\ncomponents: [" + above + "/components/forbid-opt-out]\n"
	if err := os.WriteFile(filepath.Join(folder, "kustomization.yaml"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	want, err := filepath.Rel(filepath.Join(here, "../../config"), folder)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(webhooks(built(t, want)), webhooks(got)); diff != "" {
		t.Errorf("webhooks (-kustomize +chart):\n%s", diff)
	}
	if got, err = rendered(t, values+"webhooks: {allPods: true}\n"); err != nil {
		t.Fatal(err)
	}
	all, err := rendered(t, "webhooks: {allPods: true}\n")
	if err != nil {
		t.Fatal(err)
	}
	sends := func(of objects, name, says string) bool {
		text, err := yaml.Marshal(webhooks(of)[name])
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(text), says)
	}
	if !sends(got, "unasked.shunt.dev", "['sidecar.istio.io/inject'] == 'false'") || sends(all, "unasked.shunt.dev", "== 'false'") {
		t.Error("of allPods, the pods that decline are not sent, or not only where they may not decline")
	}
	if diff := cmp.Diff(webhooks(all)["pod.shunt.dev"], webhooks(got)["pod.shunt.dev"]); diff != "" {
		t.Errorf("those that ask are sent otherwise:\n%s", diff)
	}
}

// TestEveryOverlay holds that no way to install Shunt is left out above.
func TestEveryOverlay(t *testing.T) {
	entries, err := os.ReadDir("../../config/overlays")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if want := []string{"all-pods", "namespaces-only", "prometheus", "revision"}; !slices.Equal(names, want) {
		t.Errorf("config/overlays holds %q; TestSameObjects is about %q", names, want)
	}
}

// TestRefusedValues holds that the schema knows what is meant.
func TestRefusedValues(t *testing.T) {
	for values, says := range map[string]string{
		"imagePullPolicy: Always":                         "imagePullPolicy",
		"image: {tag: 1}":                                 "tag",
		"image: {pullPolicy: Sometimes}":                  "pullPolicy",
		"certificates: letsencrypt":                       "certificates",
		"revision: Canary_1":                              "revision",
		"injector: {revision: canary}":                    "injector",
		"injector: {kind: InjectorConfiguration}":         "injector",
		"webhooks: {namespacesOnly: true, allPods: true}": "webhooks",
		"webhooks: {exemptNamespaces: [shop]}":            "exemptNamespaces",
		"webhooks: {failurePolicy: Ignore}":               "failurePolicy",
		"replicas: 0":                                     "replicas",
		"args: [self-signed]":                             "args",
		"goMemLimit: 200Mi":                               "goMemLimit",
		"networkPolicy: {apiServerPorts: [https]}":        "apiServerPorts",
		"prometheus: {enabled: \"yes\"}":                  "enabled",
		"clientCA: /etc/ca.crt":                           "clientCA",
		"node: {enabled: \"yes\"}":                        "enabled",
		"node: {args: [resync]}":                          "args",
		"injectorFiles: {config.yaml: \"\"}":              "injectorFiles",
		"injectorFiles: {a/b: \"\"}":                      "injectorFiles",
		"injectorFiles: {cdn.txt: [10.0.0.0/8]}":          "injectorFiles",
	} {
		if _, err := rendered(t, values); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v, want one that says %s", values, err, says)
		}
	}
}

// TestInjectorFiles: files of the configuration are keys of its ConfigMap.
func TestInjectorFiles(t *testing.T) {
	got, err := rendered(t, `
injector: {excludeOutboundIPRanges: "file:cdn.txt"}
injectorFiles: {cdn.txt: "# the CDN's\n192.0.2.0/24\n\n2001:db8::/32\n", other.txt: 10.0.0.0/8}
`)
	if err != nil {
		t.Fatal(err)
	}
	data := got["ConfigMap shunt-injector"]["data"].(map[string]any)
	if configuration := data["config.yaml"].(map[string]any); configuration["excludeOutboundIPRanges"] != "file:cdn.txt" {
		t.Errorf("the configuration is %v", configuration)
	}
	delete(data, "config.yaml")
	want := map[string]any{"cdn.txt": "# the CDN's\n192.0.2.0/24\n\n2001:db8::/32\n", "other.txt": "10.0.0.0/8"}
	if diff := cmp.Diff(want, data); diff != "" {
		t.Errorf("the other keys (-want +got):\n%s", diff)
	}
}

// TestValues holds where the values go that no manifest has.
func TestValues(t *testing.T) {
	got, err := rendered(t, `
image: {repository: images.example/example/shunt-webhook, tag: v1, pullPolicy: Always}
imagePullSecrets: [{name: mine}]
injector: {proxyImage: mine/envoy, imagePullSecrets: [{name: mine}]}
revision: canary
certificates: self-signed
clientCA: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
webhooks: {exemptNamespaces: [kube-system, calico-system], timeoutSeconds: 7}
replicas: 1
args: [--log-level=debug]
priorityClassName: ""
tolerations: [{key: a, operator: Exists}]
podAnnotations: {a: b}
podLabels: {c: d}
networkPolicy: {enabled: false}
`)
	if err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(got["Deployment shunt-webhook-canary"])
	if err != nil {
		t.Fatal(err)
	}
	for _, says := range []string{
		"image: images.example/example/shunt-webhook:v1\n", "imagePullPolicy: Always\n",
		"imagePullSecrets:\n      - name: mine\n", "replicas: 1\n",
		"- --self-signed\n", "- --revision=canary\n", "- --self-signed-secret=shunt-webhook-cert-canary\n",
		"- --self-signed-names=shunt-webhook-canary.shunt-system.svc\n", "- --self-signed-configuration=shunt-canary\n",
		"- --client-ca-file=/etc/shunt/client-ca.crt\n",
		"- --log-level=debug\n", "operator: Exists\n", "a: b\n", "c: d\n", "sizeLimit: 1Mi\n",
	} {
		if !strings.Contains(string(text), says) {
			t.Errorf("the Deployment does not say %q:\n%s", says, text)
		}
	}
	if text, err = yaml.Marshal(got["ConfigMap shunt-injector-canary"]); err != nil {
		t.Fatal(err)
	}
	if wanted := "client-ca.crt: |\n    -----BEGIN CERTIFICATE-----\n    AAAA\n"; !strings.Contains(string(text), wanted) {
		t.Errorf("the ConfigMap does not say %q:\n%s", wanted, text)
	}
	if text, err = yaml.Marshal(got["MutatingWebhookConfiguration shunt-canary"]); err != nil {
		t.Fatal(err)
	}
	for _, says := range []string{"- calico-system\n", "- shunt-system\n", "timeoutSeconds: 7\n"} {
		if !strings.Contains(string(text), says) {
			t.Errorf("the webhooks do not say %q:\n%s", says, text)
		}
	}
	for _, name := range []string{
		"NetworkPolicy shunt-webhook-canary", "PodDisruptionBudget shunt-webhook-canary", "ResourceQuota shunt-webhook-canary",
		"Certificate shunt-webhook-canary",
	} {
		if _, is := got[name]; is {
			t.Errorf("%s is there: %q", name, slices.Sorted(maps.Keys(got)))
		}
	}
}

// TestLint has Helm's own linter look at the chart.
func TestLint(t *testing.T) {
	for _, message := range lint.All(folder, nil, namespace, true).Messages {
		if message.Severity >= support.WarningSev {
			t.Error(message)
		}
	}
}
