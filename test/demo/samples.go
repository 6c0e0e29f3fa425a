//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/webhook"
)

// sample is a pod of the samples folder, or what a Deployment's controller
// makes of its template.
type sample struct {
	file string
	pod  *corev1.Pod
}

// samples are what the folder holds.
type samples struct {
	pods       []sample
	namespaces webhook.StaticNamespaces
}

// loadSamples reads the pods, Deployments and namespaces of all YAML files of a
// folder. Other kinds are left alone. Namespaces that the folder does not
// declare have no labels.
func loadSamples(dir string) (samples, error) {
	loaded := samples{namespaces: webhook.StaticNamespaces{}}
	paths, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return loaded, fmt.Errorf("listing %s: %w", dir, err)
	}
	slices.Sort(paths)
	for _, path := range paths {
		if err := loaded.read(path); err != nil {
			return loaded, fmt.Errorf("reading %s: %w", path, err)
		}
	}
	if len(loaded.pods) == 0 {
		return loaded, fmt.Errorf("no pod in %s", filepath.Join(dir, "*.yaml"))
	}
	for _, sample := range loaded.pods {
		name := sample.pod.Namespace
		if _, declared := loaded.namespaces[name]; !declared {
			loaded.namespaces[name] = annotation.Namespace{Name: name}
		}
	}
	return loaded, nil
}

func (s *samples) read(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.add(filepath.Base(path), document); err != nil {
			return err
		}
	}
}

func (s *samples) add(file string, document []byte) error {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(document, &kind); err != nil {
		return err
	}
	switch kind.Kind {
	case "Pod":
		pod := &corev1.Pod{}
		if err := yaml.UnmarshalStrict(document, pod); err != nil {
			return err
		}
		s.addPod(file, pod)
	case "Deployment":
		deployment := &appsv1.Deployment{}
		if err := yaml.UnmarshalStrict(document, deployment); err != nil {
			return err
		}
		template := deployment.Spec.Template
		pod := &corev1.Pod{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
			ObjectMeta: template.ObjectMeta, Spec: template.Spec,
		}
		pod.Namespace, pod.GenerateName = deployment.Namespace, deployment.Name+"-"
		s.addPod(file, pod)
	case "Namespace":
		ns := &corev1.Namespace{}
		if err := yaml.UnmarshalStrict(document, ns); err != nil {
			return err
		}
		s.namespaces[ns.Name] = annotation.Namespace{Name: ns.Name, Labels: ns.Labels, Annotations: ns.Annotations}
	}
	return nil
}

func (s *samples) addPod(file string, pod *corev1.Pod) {
	if pod.Namespace == "" {
		pod.Namespace = metav1.NamespaceDefault
	}
	s.pods = append(s.pods, sample{file, pod})
}

// injectSamples sends every sample through the webhook, and returns those that
// came back injected.
func injectSamples(ctx context.Context, n *narrator, dir string) ([]*corev1.Pod, error) {
	loaded, err := loadSamples(dir)
	if err != nil {
		return nil, err
	}
	handler := webhook.NewHandler(config.Default(), loaded.namespaces, webhook.NewMetrics()).HTTP(logr.Discard())
	api, err := startWebhook(ctx, handler, webhook.Path)
	if err != nil {
		return nil, err
	}
	defer api.close()
	n.say("webhook: serves %s", api.url)
	var injected []*corev1.Pod
	for _, s := range loaded.pods {
		result, err := api.create(ctx, s.pod)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.file, err)
		}
		n.say("webhook: %s, pod %s: %s", s.file, s.pod.Name+s.pod.GenerateName, result)
		if result.injected() {
			injected = append(injected, result.pod)
		}
	}
	return injected, nil
}

func (v verdict) injected() bool {
	if v.pod == nil {
		return false
	}
	_, err := initContainer(v.pod, podplan.ProxyContainerName)
	return err == nil
}

// String says what became of the pod.
func (v verdict) String() string {
	var text string
	switch {
	case v.pod == nil:
		text = "refused: " + v.refused
	case !v.injected():
		text = "left alone: " + v.reason
	default:
		text = fmt.Sprintf("injected by a patch of %d operations, interception %s", v.patched, modeOf(v.pod))
	}
	if len(v.warnings) > 0 {
		text += "; warnings: " + strings.Join(v.warnings, "; ")
	}
	return text
}

func modeOf(pod *corev1.Pod) interception.Mode {
	spec, err := specOf(pod)
	if err != nil {
		return interception.ModeNone // the one mode without an init container
	}
	return spec.Mode()
}
