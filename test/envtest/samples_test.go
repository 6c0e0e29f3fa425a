package envtest_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
)

// kustomizations are the folders of config that kubectl apply -k takes.
func kustomizations() []string {
	GinkgoHelper()
	var folders []string
	Expect(filepath.WalkDir("../../config", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() != "kustomization.yaml" {
			return err
		}
		text, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(text), "\nkind: Kustomization\n") {
			folders = append(folders, filepath.Dir(path))
		}
		return err
	})).To(Succeed())
	return folders
}

// theOne is the only object of a kind, as its type.
func theOne[T any](objects []*unstructured.Unstructured, kind string) *T {
	GinkgoHelper()
	var found []*unstructured.Unstructured
	for _, object := range objects {
		if isKind(kind)(object) {
			found = append(found, object)
		}
	}
	Expect(found).To(HaveLen(1), kind)
	into := new(T)
	Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(found[0].Object, into)).To(Succeed())
	return into
}

var _ = Describe("the samples of other proxies", func() {
	It("build, as every kustomization does", func() {
		folders := kustomizations()
		Expect(folders).To(ContainElements("../../config/default", "../../config/samples", "../../config/samples/haproxy"))
		for _, folder := range folders {
			objectsFrom(folder)
		}
	})

	DescribeTable("put a ConfigMap in the pod's namespace and a configuration before the webhook",
		func(ctx SpecContext, folder, configMap string, files ...string) {
			folder = filepath.Join("../../config/samples", folder)
			made := theOne[corev1.ConfigMap](objectsFrom(folder), "ConfigMap")
			Expect(made.Name).To(Equal(configMap))
			Expect(made.Namespace).To(BeEmpty(), "kubectl apply -n says which")
			Expect(made.Data).To(HaveLen(len(files)))
			for _, file := range files {
				Expect(made.Data).To(HaveKeyWithValue(file, contentOf(filepath.Join(folder, file))))
			}

			folder = filepath.Join(folder, "injector")
			objects := objectsFrom(folder)
			expectConfigured(objects, contentOf(filepath.Join(folder, "injector.yaml")))
			shuntNamespace(ctx)
			createFrom(ctx, folder, isKind("Deployment", "ConfigMap"), client.DryRunAll)
			cfg, err := inject.ParseConfig([]byte(theOne[corev1.ConfigMap](objects, "ConfigMap").Data["config.yaml"]))
			Expect(err).NotTo(HaveOccurred())
			expectAdmitted(ctx, cfg, configMap)
		},
		Entry("HAProxy", "haproxy", "shunt-haproxy", "haproxy.cfg"),
		Entry("mitmproxy", "mitmproxy", "shunt-mitmproxy", "shunt.py"),
		Entry("an Envoy of one's own", "envoy-bootstrap", "shunt-envoy", "envoy.yaml"),
	)
})

func contentOf(path string) string {
	GinkgoHelper()
	text, err := os.ReadFile(path)
	Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// expectConfigured holds that the webhook reads the configuration: its flag
// names a file, at whose folder a ConfigMap is mounted that has it.
func expectConfigured(objects []*unstructured.Unstructured, text string) {
	GinkgoHelper()
	configMap := theOne[corev1.ConfigMap](objects, "ConfigMap")
	pod := theOne[appsv1.Deployment](objects, "Deployment").Spec.Template.Spec
	Expect(pod.Containers[0].Args).To(ContainElement("--config=/etc/shunt/config.yaml"))
	Expect(pod.Containers[0].VolumeMounts).To(ContainElement(
		corev1.VolumeMount{Name: "injector", MountPath: "/etc/shunt", ReadOnly: true}))
	Expect(pod.Volumes).To(ContainElement(corev1.Volume{Name: "injector", VolumeSource: corev1.VolumeSource{
		ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: configMap.Name}},
	}}))
	Expect(configMap.Data).To(HaveKeyWithValue("config.yaml", text))
}

// expectAdmitted has the API server take a pod that is injected with the
// configuration, and that mounts the ConfigMap.
func expectAdmitted(ctx context.Context, cfg config.Config, configMap string) {
	GinkgoHelper()
	name := newNamespace(ctx, nil)
	pod := labelled(newPod(name, nil), map[string]string{annotation.InjectKey: "true"})
	result := inject.Inject(pod, annotation.Namespace{Name: name}, cfg)
	Expect(result.Inject).To(BeTrue(), "%s %v", result.Reason, result.Errors)
	Expect(result.Warnings).To(BeEmpty())
	var mounted []string
	for _, volume := range result.Pod.Spec.Volumes {
		if volume.ConfigMap != nil {
			mounted = append(mounted, volume.ConfigMap.Name)
		}
	}
	Expect(mounted).To(ConsistOf(configMap))
	// The webhook of this suite has another configuration, and would replace what this one put in.
	delete(result.Pod.Labels, annotation.InjectKey)
	strict := client.WithFieldValidation(api, "Strict")
	Expect(strict.Create(ctx, result.Pod, client.DryRunAll)).To(Succeed())
}
