package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestManifestRunsThisProgram holds that the Deployment that ships passes
// arguments that are accepted, and exposes, probes and mounts what they say.
func TestManifestRunsThisProgram(t *testing.T) {
	text, err := os.ReadFile("../../config/manager/manager.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var deployment appsv1.Deployment
	if err := yaml.UnmarshalStrict(text, &deployment); err != nil {
		t.Fatal(err)
	}
	container := deployment.Spec.Template.Spec.Containers[0]
	got, err := parse(container.Args)
	if err != nil {
		t.Fatal(err)
	}
	ports := map[string]string{}
	for _, port := range container.Ports {
		ports[port.Name] = fmt.Sprintf(":%d", port.ContainerPort)
	}
	want := map[string]string{
		"webhook": fmt.Sprintf(":%d", got.options.Port), "metrics": got.options.MetricsAddress, "health": got.options.ProbeAddress,
	}
	if diff := cmp.Diff(want, ports); diff != "" {
		t.Errorf("ports (-flags +container):\n%s", diff)
	}
	if mount := container.VolumeMounts[0]; mount.MountPath != got.options.CertDir {
		t.Errorf("the certificate is mounted at %s, and read from %s", mount.MountPath, got.options.CertDir)
	}
	fields := map[string]string{}
	for _, variable := range container.Env {
		fields[variable.Name] = variable.ValueFrom.FieldRef.FieldPath
	}
	if me := self(func(name string) string { return fields[name] }); me == nil ||
		me.Name != "metadata.name" || me.Namespace != "metadata.namespace" || me.UID != "metadata.uid" {
		t.Errorf("the pod takes itself for %+v", me)
	}
	for path, probe := range map[string]*corev1.Probe{
		"/readyz": container.ReadinessProbe, "/healthz": container.LivenessProbe,
	} {
		if probe.HTTPGet.Path != path || probe.HTTPGet.Port.StrVal != "health" {
			t.Errorf("probe %v, want %s of port health", probe.HTTPGet, path)
		}
	}
}
