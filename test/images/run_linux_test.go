package images

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/test/container"
	"github.com/shunt-dev/shunt/test/netns"
)

// TestMain lets the test binary become a container.
func TestMain(m *testing.M) {
	container.Main()
	os.Exit(m.Run())
}

// testRuns runs the init container of injected pods in its image, and nothing
// else: as the user, with the capabilities and on the read-only root that the
// pod says.
func testRuns(t *testing.T, architectures map[string]built) {
	netns.Require(t)
	image := architectures[runtime.GOARCH]
	root := image.unpack(t)
	t.Run("every command", func(t *testing.T) { testCommands(t, image, root) })
	for _, backend := range []interception.Backend{interception.BackendNFT, interception.BackendNFTables, interception.BackendLegacy} {
		for _, mode := range []interception.Mode{interception.ModeRedirect, interception.ModeTProxy} {
			t.Run(fmt.Sprintf("%s/%s", backend, mode), func(t *testing.T) {
				t.Parallel()
				testMode(t, container.Node{
					Root: root, Programs: map[string]string{"": filepath.Join(root, image.settings.Entrypoint[0])}, EmptyDirs: t.TempDir(),
				}, backend, mode)
			})
		}
	}
}

// testRunsAlone runs the init container in the image that holds its program and nothing else, with
// the configuration's default backend.
func testRunsAlone(t *testing.T, architectures map[string]built) {
	netns.Require(t)
	image := architectures[runtime.GOARCH]
	root := image.unpack(t)
	for _, mode := range []interception.Mode{interception.ModeRedirect, interception.ModeTProxy} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			testMode(t, container.Node{
				Root: root, Programs: map[string]string{"": filepath.Join(root, image.settings.Entrypoint[0])}, EmptyDirs: t.TempDir(),
			}, interception.BackendAuto, mode)
		})
	}
}

// testMode has a fresh pod intercepted, and then verified, from the image.
func testMode(t *testing.T, node container.Node, backend interception.Backend, mode interception.Mode) {
	lab, err := netns.NewLab()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lab.Close() })
	pod, init := injected(t, backend, mode)
	for _, says := range []string{"applied, verified", "nothing to change, read back; proved by an earlier run"} {
		if said := run(t, lab.Pod, pod, init, node); !strings.Contains(said, says) {
			t.Errorf("shunt-init says %q, want %q", said, says)
		}
	}
	verify := init
	verify.Args = append(withoutShare(init.Args), "--verify")
	run(t, lab.Pod, pod, verify, node)

	remove := init
	remove.Args = []string{"--remove", "--backend=" + string(backend)}
	run(t, lab.Pod, pod, remove, node)
	c, err := container.New(pod, verify, node)
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Start(t.Context(), lab.Pod)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err == nil {
		t.Error("--verify passes where the rules have been removed")
	}
}

// withoutShare leaves out what --verify refuses.
func withoutShare(args []string) []string {
	var kept []string
	for i := 0; i < len(args); i++ {
		if args[i] == "--share" {
			i++
			continue
		}
		if !strings.HasPrefix(args[i], "--share=") && !strings.HasPrefix(args[i], "--envoy=") {
			kept = append(kept, args[i])
		}
	}
	return kept
}

// injected is a pod as the webhook makes it, and its init container.
func injected(t *testing.T, backend interception.Backend, mode interception.Mode) (*corev1.Pod, corev1.Container) {
	t.Helper()
	cfg := config.Default()
	cfg.Backend = backend
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}}}
	pod.Name, pod.Namespace = "web", "shop"
	pod.Labels = map[string]string{annotation.InjectKey: "true"}
	pod.Annotations = map[string]string{annotation.InterceptionModeKey: string(mode)}
	result := inject.Inject(pod, annotation.Namespace{Name: "shop"}, cfg)
	if result.Pod == nil {
		t.Fatalf("not injected: %+v", result.Decision)
	}
	for _, c := range result.Pod.Spec.InitContainers {
		if c.Name == podplan.InitContainerName {
			return result.Pod, c
		}
	}
	t.Fatalf("no init container %s", podplan.InitContainerName)
	return nil, corev1.Container{}
}

func run(t *testing.T, ns *netns.NS, pod *corev1.Pod, c corev1.Container, node container.Node) string {
	t.Helper()
	made, err := container.New(pod, c, node)
	if err != nil {
		t.Fatal(err)
	}
	p, err := made.Start(t.Context(), ns)
	if err == nil {
		err = p.Wait()
	}
	if err != nil {
		t.Fatalf("%q: %v", made.Args, err)
	}
	return strings.Join(p.Output(), "\n")
}

// testCommands holds that each command of iptables in the image starts and
// each extension loads, which takes their libraries.
func testCommands(t *testing.T, image built, root string) {
	ns, err := netns.New("commands")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	node := container.Node{Root: root}
	pod := &corev1.Pod{}
	privileges := &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN", "NET_RAW"}}}
	commands, extensions := 0, 0
	for place := range image.headers() {
		dir, name := filepath.Split(place)
		switch {
		case dir == "usr/sbin/" && strings.HasPrefix(name, "ip"):
			commands++
			said := run(t, ns, pod, corev1.Container{Command: []string{"/" + place}, Args: []string{"--version"}}, node)
			if !strings.Contains(said, " v1.") {
				t.Errorf("%s --version says %q", place, said)
			}
		case filepath.Base(dir) == "xtables":
			extensions++
			family, extension, _ := strings.Cut(strings.TrimSuffix(name, ".so"), "_")
			program, kind := "/usr/sbin/iptables-legacy", "-m"
			if family == "libip6t" {
				program = "/usr/sbin/ip6tables-legacy"
			}
			if extension == "standard" {
				extension = "ACCEPT"
			}
			if extension == strings.ToUpper(extension) {
				kind = "-j"
			}
			said := run(t, ns, pod, corev1.Container{
				Command: []string{program}, Args: []string{kind, extension, "--help"}, SecurityContext: privileges,
			}, node)
			if !strings.Contains(said, "Usage: ip") {
				t.Errorf("%s does not load: %s", place, said)
			}
		}
	}
	if commands != 12 || extensions < 100 {
		t.Errorf("%d commands and %d extensions, want 12 and more than 100", commands, extensions)
	}
}
