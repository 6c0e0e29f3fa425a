//go:build linux

package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/test/netns"
)

// TestMain makes the test binary able to become a container.
func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

func newPod() *corev1.Pod {
	pod := &corev1.Pod{}
	pod.Name, pod.Namespace = "web", "shop"
	return pod
}

// TestContainerIdentity checks what the kernel allows a container.
func TestContainerIdentity(t *testing.T) {
	netns.Require(t)
	ns, err := netns.New("containers")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	all := &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}
	netAdmin := &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_ADMIN"}}
	tests := []struct {
		name    string
		context *corev1.SecurityContext
		want    []string // lines of /proc/self/status
	}{
		{"root with NET_ADMIN", &corev1.SecurityContext{
			RunAsUser: new(int64(0)), RunAsGroup: new(int64(1337)), Capabilities: netAdmin, AllowPrivilegeEscalation: new(false),
		}, []string{"Uid: 0 0 0 0", "Gid: 1337 1337 1337 1337", "Groups:", "CapEff: 0000000000001000",
			"CapPrm: 0000000000001000", "CapBnd: 0000000000001000", "CapAmb: 0000000000000000", "NoNewPrivs: 1"}},
		{"user with NET_ADMIN", &corev1.SecurityContext{
			RunAsUser: new(int64(1337)), RunAsGroup: new(int64(1337)), Capabilities: netAdmin, AllowPrivilegeEscalation: new(false),
		}, []string{"Uid: 1337 1337 1337 1337", "CapEff: 0000000000000000", "CapPrm: 0000000000000000",
			"CapBnd: 0000000000001000", "NoNewPrivs: 1"}},
		{"root with nothing", &corev1.SecurityContext{Capabilities: all, ReadOnlyRootFilesystem: new(true)},
			[]string{"Uid: 0 0 0 0", "CapEff: 0000000000000000", "CapBnd: 0000000000000000", "NoNewPrivs: 0"}},
		{"root as containerd has it", nil, []string{"Uid: 0 0 0 0", "CapEff: 00000000a80425fb", "CapBnd: 00000000a80425fb"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := New(newPod(), corev1.Container{Args: []string{"/proc/self/status"}, SecurityContext: tt.context},
				Node{Programs: map[string]string{"": "/bin/cat"}})
			if err != nil {
				t.Fatal(err)
			}
			status := strings.Join(strings.Fields(strings.Join(runContainer(t, c, ns), " ")), " ") + " "
			for _, want := range tt.want {
				if !strings.Contains(status, want+" ") {
					t.Errorf("no %q in %s", want, status)
				}
			}
		})
	}
}

func runContainer(t *testing.T, c Container, ns *netns.NS) []string {
	t.Helper()
	p, err := c.Start(t.Context(), ns)
	if err == nil {
		err = p.Wait()
	}
	if err != nil {
		t.Fatal(err)
	}
	return p.Output()
}

// TestReadOnlyRoot writes where a container must not.
func TestReadOnlyRoot(t *testing.T) {
	netns.Require(t)
	ns, err := netns.New("containers")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	c := Container{Program: "/bin/sh", Args: []string{"-c", ": >/shunt-container-was-here"}, Env: []string{"PATH=/bin"}, ReadOnlyRoot: true}
	p, err := c.Start(t.Context(), ns)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err == nil || !strings.Contains(err.Error(), "Read-only") {
		t.Errorf("writing to the root file system: %v, want: read-only", err)
	}
	if _, err := os.Stat("/shunt-container-was-here"); err == nil {
		t.Error("the root file system was written to")
	}
}

// TestContainerArguments checks that variables reach the arguments as with kubelet.
func TestContainerArguments(t *testing.T) {
	c, err := New(newPod(), corev1.Container{
		Command: []string{"envoy"}, Args: []string{"--service-node", "$(NAME).$(SPACE)", "$$(NAME)", "$(BOTH)"},
		Env: []corev1.EnvVar{
			{Name: "NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
			{Name: "SPACE", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}},
			{Name: "BOTH", Value: "$(NAME)/$(SPACE)"},
		},
	}, Node{Programs: map[string]string{"envoy": "/opt/envoy"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.Args, " "); c.Program != "/opt/envoy" || got != "--service-node web.shop $(NAME) web/shop" {
		t.Errorf("%s %s", c.Program, got)
	}
}

// TestUnsupportedContainer checks that a pod that cannot run here is an error.
func TestUnsupportedContainer(t *testing.T) {
	for name, c := range map[string]corev1.Container{
		"an unknown command": {Command: []string{"nginx"}},
		"a privileged one":   {SecurityContext: &corev1.SecurityContext{Privileged: new(true)}},
		"root, but non-root": {SecurityContext: &corev1.SecurityContext{RunAsNonRoot: new(true)}},
		"an unknown capability": {SecurityContext: &corev1.SecurityContext{
			Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"FLY"}}}},
		"an unknown field": {Env: []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{
			FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}}}},
		"a volume that is nowhere": {VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}},
		"a secret": {Env: []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{
			SecretKeyRef: &corev1.SecretKeySelector{Key: "k"}}}}},
	} {
		if _, err := New(newPod(), c, Node{Programs: map[string]string{"": "/bin/true"}}); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// TestVolumes checks that a container finds its volumes where it mounts them, that the next one
// finds what it wrote there, and that nothing else has changed.
func TestVolumes(t *testing.T) {
	netns.Require(t)
	ns, err := netns.New("containers")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	config := t.TempDir()
	if err := os.WriteFile(filepath.Join(config, "proxy.cfg"), []byte("from a ConfigMap\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	resolvConf := filepath.Join(t.TempDir(), "of-the-pod")
	if err := os.WriteFile(resolvConf, []byte("nameserver 192.0.2.53\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	node := Node{
		ResolvConf: resolvConf,
		Programs:   map[string]string{"": "/bin/sh"}, EmptyDirs: t.TempDir(), Volumes: map[string]string{"config": config},
	}
	pod := newPod()
	pod.Spec.Volumes = []corev1.Volume{{Name: "shared", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	run := func(script string, readOnly bool) []string {
		t.Helper()
		c, err := New(pod, corev1.Container{
			Args: []string{"-c", script},
			VolumeMounts: []corev1.VolumeMount{
				{Name: "shared", MountPath: "/shunt", ReadOnly: readOnly},
				{Name: "config", MountPath: "/etc/shunt-proxy", ReadOnly: true},
			},
			SecurityContext: &corev1.SecurityContext{
				RunAsUser: new(int64(1337)), RunAsGroup: new(int64(1337)), ReadOnlyRootFilesystem: new(true),
			},
		}, node)
		if err != nil {
			t.Fatal(err)
		}
		return runContainer(t, c, ns)
	}
	run(`echo '#!/bin/true' >/shunt/program; chmod 755 /shunt/program; cat /etc/passwd >/dev/null`, false)
	got := run(`cat /etc/shunt-proxy/proxy.cfg /etc/resolv.conf; /shunt/program && echo runs
		for file in /shunt/x /etc/shunt-proxy/x /etc/x /x /usr/x; do
			(: >$file) 2>/dev/null && echo "$file was written"
		done; true`, true)
	if diff := cmp.Diff([]string{"from a ConfigMap", "nameserver 192.0.2.53", "runs"}, got); diff != "" {
		t.Errorf("what the container said (-want +got):\n%s", diff)
	}
	for _, path := range []string{"/shunt", "/etc/shunt-proxy", "/etc/x"} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is there on this machine", path)
		}
	}
	c := Container{Mounts: []Mount{{Path: "/shunt", Source: filepath.Join(node.EmptyDirs, "shared")}}}
	wanted := filepath.Join(node.EmptyDirs, "shared", "program")
	if c, err = c.Exec(node, []string{"/shunt/program", "drain"}); err != nil || c.Program != wanted {
		t.Errorf("a program in a volume: %q, %v", c.Program, err)
	}
}
