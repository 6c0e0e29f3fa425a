package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"
)

func deployed(t *testing.T) appsv1.Deployment {
	t.Helper()
	text, err := os.ReadFile("../../config/manager/manager.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var deployment appsv1.Deployment
	if err := yaml.UnmarshalStrict(text, &deployment); err != nil {
		t.Fatal(err)
	}
	return deployment
}

// withFile returns the container's arguments with the configuration file of an overlay in place of
// the mounted one.
func withFile(t *testing.T, container corev1.Container) []string {
	t.Helper()
	const flag, file = "--config=", "config.yaml" // the key in the ConfigMap, too
	args := slices.Clone(container.Args)
	i := slices.IndexFunc(args, func(arg string) bool { return strings.HasPrefix(arg, flag) })
	if i < 0 {
		t.Fatalf("no %s in %q", flag, args)
	}
	folder := strings.TrimSuffix(strings.TrimPrefix(args[i], flag), "/"+file)
	if !slices.ContainsFunc(container.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == folder && m.SubPath == "" }) {
		t.Errorf("%s is nothing that is mounted as a folder", folder)
	}
	args[i] = flag + "../../config/samples/overlay/" + file
	return args
}

// TestManifestRunsThisProgram checks that the Deployment that ships passes valid arguments, and
// exposes, probes and mounts what they name.
func TestManifestRunsThisProgram(t *testing.T) {
	container := deployed(t).Spec.Template.Spec.Containers[0]
	got, err := parse(withFile(t, container))
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
	for path, probe := range map[string]*corev1.Probe{
		"/readyz": container.ReadinessProbe, "/healthz": container.LivenessProbe,
	} {
		if probe.HTTPGet.Path != path || probe.HTTPGet.Port.StrVal != "health" {
			t.Errorf("probe %v, want %s of port health", probe.HTTPGet, path)
		}
	}
}

// TestVariables checks that the container's variables identify the pod, and leave room for memory
// that Go's soft limit does not count.
func TestVariables(t *testing.T) {
	container := deployed(t).Spec.Template.Spec.Containers[0]
	values, fields := map[string]string{}, map[string]string{}
	for _, variable := range container.Env {
		if variable.ValueFrom == nil {
			values[variable.Name] = variable.Value
		} else {
			fields[variable.Name] = variable.ValueFrom.FieldRef.FieldPath
		}
	}
	limit := container.Resources.Limits.Memory().Value()
	soft := resource.MustParse(strings.TrimSuffix(values["GOMEMLIMIT"], "B"))
	if soft.Value() < limit/2 || soft.Value() > limit*8/10 {
		t.Errorf("GOMEMLIMIT is %s of %d bytes that the container may have, want 50 to 80 %%", values["GOMEMLIMIT"], limit)
	}
	if me := self(func(name string) string { return fields[name] }); me == nil ||
		me.Name != "metadata.name" || me.Namespace != "metadata.namespace" || me.UID != "metadata.uid" {
		t.Errorf("the pod takes itself for %+v", me)
	}
}
