package envtest_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/shunt-dev/shunt/inject/annotation"
)

// ginkgoLog shows the webhook's log lines where a spec fails.
func ginkgoLog() slog.Handler { return slog.NewTextHandler(GinkgoWriter, nil) }

func namespace(labels map[string]string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "case-", Labels: labels}}
}

// newNamespace makes one, and returns its name. Nothing removes it: there is
// no controller, and the API server goes with the suite.
func newNamespace(ctx context.Context, labels map[string]string) string {
	GinkgoHelper()
	return newAnnotatedNamespace(ctx, labels, nil)
}

func newAnnotatedNamespace(ctx context.Context, labels, annotations map[string]string) string {
	GinkgoHelper()
	ns := namespace(labels)
	ns.Annotations = annotations
	Expect(api.Create(ctx, ns)).To(Succeed())
	return ns.Name
}

// enabled is the label of a namespace that asks for the proxy.
var enabled = map[string]string{annotation.NamespaceInjectionKey: "enabled"}

func list(kind string) *unstructured.UnstructuredList {
	objects := &unstructured.UnstructuredList{}
	objects.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
	return objects
}

// newPod is a pod as people write it, with the given annotations.
func newPod(ns string, annotations map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "echo-", Namespace: ns, Annotations: annotations},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
}

func labelled(pod *corev1.Pod, labels map[string]string) *corev1.Pod {
	pod.Labels = labels
	return pod
}

// initContainers are the names of a pod's.
func initContainers(pod *corev1.Pod) []string {
	var names []string
	for _, c := range pod.Spec.InitContainers {
		names = append(names, c.Name)
	}
	return names
}

// sysctls are those that a pod sets.
func sysctls(pod *corev1.Pod) []corev1.Sysctl {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.Sysctls
}

// warnings collects what the API server tells a client beside its answers.
type warnings struct {
	mutex sync.Mutex
	texts []string
}

func (w *warnings) HandleWarningHeader(_ int, _ string, text string) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.texts = append(w.texts, text)
}

// warned is a client whose warnings can be read.
func warned() (client.Client, *warnings) {
	GinkgoHelper()
	config, texts := rest.CopyConfig(admin), &warnings{}
	config.WarningHandler = texts
	c, err := client.New(config, client.Options{Scheme: scheme.Scheme})
	Expect(err).NotTo(HaveOccurred())
	return c, texts
}

// objectsFrom are those that kustomize builds from a folder of config.
func objectsFrom(dir string) []*unstructured.Unstructured {
	GinkgoHelper()
	var stderr bytes.Buffer
	command := childCommand(context.Background(), filepath.Join(os.Getenv(assetsVariable), "kubectl"), "kustomize", dir)
	command.Stderr = &stderr
	text, err := command.Output()
	Expect(err).NotTo(HaveOccurred(), "kustomize %s: %s", dir, &stderr)
	reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	var objects []*unstructured.Unstructured
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			Expect(objects).NotTo(BeEmpty(), dir)
			return objects
		}
		Expect(err).NotTo(HaveOccurred())
		object := &unstructured.Unstructured{}
		Expect(yaml.Unmarshal(document, &object.Object)).To(Succeed())
		objects = append(objects, object)
	}
}

func isKind(kinds ...string) func(*unstructured.Unstructured) bool {
	return func(o *unstructured.Unstructured) bool { return slices.Contains(kinds, o.GetKind()) }
}

// createFrom creates the objects of a folder of config that are wanted. A
// field that the API server does not know is an error.
func createFrom(ctx context.Context, dir string, wanted func(*unstructured.Unstructured) bool, opts ...client.CreateOption) {
	GinkgoHelper()
	strict := client.WithFieldValidation(api, metav1.FieldValidationStrict)
	for _, object := range objectsFrom(dir) {
		if wanted(object) {
			Expect(strict.Create(ctx, object, opts...)).To(Succeed(), "%s %s", object.GetKind(), object.GetName())
		}
	}
}
