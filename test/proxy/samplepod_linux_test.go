package proxy

import (
	"bufio"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/test/netns"
)

const samplesFolder = "../../config/samples"

// samplePod is a pod with a sample's proxy, and servers in it and outside.
type samplePod struct {
	*pod
	sample
	mode    interception.Mode
	trusted *x509.CertPool // what a client trusts
}

// start starts a pod that was injected with the sample's configuration, with additional arguments
// for its proxy.
func (s sample) start(t *testing.T, mode interception.Mode, more ...string) *samplePod {
	t.Helper()
	injected := s.inject(t, mode)
	c := initContainer(t, injected, podplan.ProxyContainerName)
	c.Args = append(c.Args, more...)
	programs := map[string]string{c.Command[0]: s.image(t, c)}
	p := &samplePod{
		pod:    startPod(t, injected, programs, s.volumes(t, injected, c)),
		sample: s, mode: mode, trusted: x509.NewCertPool(),
	}
	for _, ns := range []*netns.NS{p.Pod, p.Outside} {
		p.serve(t, ns)
	}
	return p
}

// inject injects a pod with the sample's configuration of the injector.
func (s sample) inject(t *testing.T, mode interception.Mode) *corev1.Pod {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(samplesFolder, s.folder, "injector", "injector.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := inject.ParseConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	return newPod(t, mode, nil, func(c *config.Config) { *c = cfg })
}

// volumes returns the folders of the pod's volumes that the proxy's container mounts, without
// emptyDirs.
func (s sample) volumes(t *testing.T, injected *corev1.Pod, c *corev1.Container) map[string]string {
	t.Helper()
	volumes, configMaps := map[string]string{}, s.configMaps(t)
	for _, volume := range injected.Spec.Volumes {
		if volume.ConfigMap != nil {
			volumes[volume.Name] = configMaps[volume.ConfigMap.Name]
		}
	}
	for _, mount := range c.VolumeMounts {
		if strings.HasPrefix(mount.Name, imageVolume) {
			volumes[mount.Name] = mount.MountPath
		}
	}
	return volumes
}

// configMaps makes folders of the sample's ConfigMaps, from its kustomization. test/envtest checks
// that kubectl makes the same of it.
func (s sample) configMaps(t *testing.T) map[string]string {
	t.Helper()
	var kustomization struct {
		ConfigMapGenerator []struct {
			Name  string
			Files []string
		}
	}
	text, err := os.ReadFile(filepath.Join(samplesFolder, s.folder, "kustomization.yaml"))
	if err == nil {
		err = yaml.Unmarshal(text, &kustomization)
	}
	if err != nil {
		t.Fatal(err)
	}
	folders := map[string]string{}
	for _, generator := range kustomization.ConfigMapGenerator {
		folders[generator.Name] = t.TempDir()
		for _, file := range generator.Files {
			copyFile(t, filepath.Join(folders[generator.Name], file), filepath.Join(samplesFolder, s.folder, file))
		}
	}
	return folders
}

func copyFile(t *testing.T, to, from string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o644) //nolint:gosec // as kubelet does: the proxy's user reads it
	}
	if err != nil {
		t.Fatal(err)
	}
}

// imageVolume begins the names of volumes that hold an image's content.
const imageVolume = "image-"

// image returns the program that stands in for the container's command. A script runs in its
// interpreter. The folders of both are mounted where they are, because the container's user may not
// be able to reach them.
func (s sample) image(t *testing.T, c *corev1.Container) string {
	t.Helper()
	program := s.program(t)
	interpreter, err := interpreterOf(program)
	if err != nil {
		t.Fatal(err)
	}
	if interpreter == "" {
		return program
	}
	target, err := filepath.EvalSymlinks(interpreter)
	if err != nil {
		t.Fatal(err)
	}
	above := func(path string) string { return filepath.Dir(filepath.Dir(path)) }
	for i, folder := range []string{filepath.Dir(program), above(interpreter), above(target)} {
		if folder != "/" {
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{
				Name: fmt.Sprint(imageVolume, i), MountPath: folder, ReadOnly: true,
			})
		}
	}
	c.Args = append([]string{program}, c.Args...)
	return interpreter
}

// interpreterOf returns the interpreter in a script's first line; "" if it is no script.
func interpreterOf(program string) (string, error) {
	file, err := os.Open(program)
	if err != nil {
		return "", err
	}
	defer file.Close()
	head := make([]byte, len("#!"))
	if _, err := io.ReadFull(file, head); err != nil || string(head) != "#!" {
		return "", err
	}
	line, err := bufio.NewReader(file).ReadString('\n')
	if err != nil || len(strings.Fields(line)) != 1 {
		return "", fmt.Errorf("%s: its first line names %q; accepted: the path of an interpreter", program, line)
	}
	return strings.TrimSpace(line), nil
}

// serve starts a host's three servers, on both families.
func (p *samplePod) serve(t *testing.T, ns *netns.NS) {
	t.Helper()
	for _, at := range netns.Wildcards {
		first, err := ns.Listen("tcp", netip.AddrPortFrom(at, greetingPort), netns.ListenOptions{Name: ns.Name()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = first.Close() })
		p.serveHTTP(t, ns, netip.AddrPortFrom(at, plainPort)).Start()
		server := p.serveHTTP(t, ns, netip.AddrPortFrom(at, securePort))
		server.StartTLS()
		p.trusted.AddCert(server.Certificate())
	}
}

func (p *samplePod) serveHTTP(t *testing.T, ns *netns.NS, at netip.AddrPort) *httptest.Server {
	t.Helper()
	listener, err := ns.ListenTCP(at, netns.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(answer))
	_ = server.Listener.Close() // it was made in another namespace
	server.Listener = listener
	server.Config.Protocols = &http.Protocols{}
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // for connections that are closed before they are used
	t.Cleanup(server.Close)
	return server
}

// answer echoes a request's body, with the client's address and the protocol. At /stream its answer
// does not end.
func answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Seen-From", r.RemoteAddr)
	w.Header().Set("Spoken", r.Proto)
	_, _ = io.Copy(w, r.Body)
	if r.URL.Path == "/stream" {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}
