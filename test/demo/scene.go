//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/test/container"
	"github.com/shunt-dev/shunt/test/netns"
)

// scene is an injected pod at work.
type scene struct {
	mode    interception.Mode
	spec    interception.Spec // as the init container's arguments say it
	network *network
	proxy   *container.Process
	app     netns.Identity
	appPort uint16
	servers []*netns.Server
	volumes string // folder of the pod's empty volumes
}

// outsidePort is where the app calls the host outside.
const outsidePort = 80

// show starts an injected pod and returns what became of each connection.
func show(ctx context.Context, n *narrator, opts options, mode interception.Mode, pod *corev1.Pod) ([]row, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := newScene(mode, pod)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if s.network, err = newNetwork(); err != nil {
		return nil, err
	}
	n.say("%s: network namespaces: client %s %s, pod %s %s, outside %s %s, and a node that routes between them", mode,
		clientAddresses.v4, clientAddresses.v6, podAddresses.v4, podAddresses.v6, outsideAddresses.v4, outsideAddresses.v6)
	if err := s.setSysctls(n, pod); err != nil {
		return nil, err
	}
	if err := s.runInit(ctx, n, opts, pod); err != nil {
		return nil, err
	}
	if err := s.startProxy(ctx, n, opts, pod); err != nil {
		return nil, err
	}
	if err := s.startServers(n); err != nil {
		return nil, err
	}
	rows := s.connect(ctx, n)
	s.stopServers() // which waits until Envoy has closed its connections to them
	n.say("%s: stopping Envoy, which writes the rest of its access log", mode)
	_ = s.proxy.Stop(syscall.SIGTERM, stopGrace)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.judge(rows, s.proxy.Output())
	return rows, nil
}

// stopGrace is less than kubelet's 30 s: nothing here is worth waiting for.
const stopGrace = 5 * time.Second

func newScene(mode interception.Mode, pod *corev1.Pod) (*scene, error) {
	spec, err := specOf(pod)
	if err != nil {
		return nil, err
	}
	volumes, err := os.MkdirTemp("", "shunt-demo-")
	if err != nil {
		return nil, fmt.Errorf("making a folder for the pod's volumes: %w", err)
	}
	s := &scene{mode: mode, spec: spec, app: netns.Identity{UID: 1000, GID: 1000}, appPort: 8080, volumes: volumes}
	c := pod.Spec.Containers[0]
	if len(c.Ports) > 0 {
		s.appPort = uint16(c.Ports[0].ContainerPort)
	}
	if c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil {
		s.app.UID = uint32(*c.SecurityContext.RunAsUser)
	}
	return s, nil
}

func (s *scene) stopServers() {
	for _, server := range s.servers {
		_ = server.Close()
	}
	s.servers = nil
}

func (s *scene) close() {
	s.stopServers()
	if s.network != nil {
		_ = s.network.close()
	}
	_ = os.RemoveAll(s.volumes)
}

// node is where the pod runs: this machine.
func (s *scene) node(programs map[string]string) container.Node {
	return container.Node{
		Programs: programs, PodIPs: []netip.Addr{podAddresses.v4, podAddresses.v6}, EmptyDirs: s.volumes,
	}
}

// initContainer returns the named init container of an injected pod.
func initContainer(pod *corev1.Pod, name string) (corev1.Container, error) {
	for _, c := range pod.Spec.InitContainers {
		if c.Name == name {
			return c, nil
		}
	}
	return corev1.Container{}, fmt.Errorf("pod %s has no init container %s", pod.Name, name)
}

// specOf reads what a pod's init container is told.
func specOf(pod *corev1.Pod) (interception.Spec, error) {
	c, err := initContainer(pod, podplan.InitContainerName)
	if err != nil {
		return interception.Spec{}, err
	}
	spec, _, err := interception.ParseArgs(c.Args)
	if err != nil {
		return spec, fmt.Errorf("pod %s: arguments of %s: %w", pod.Name, c.Name, err)
	}
	return spec, nil
}

// setSysctls sets those of the pod, before any of its containers runs.
func (s *scene) setSysctls(n *narrator, pod *corev1.Pod) error {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	for _, sysctl := range pod.Spec.SecurityContext.Sysctls {
		if err := s.network.pod.Sysctl(strings.ReplaceAll(sysctl.Name, ".", "/"), sysctl.Value); err != nil {
			return fmt.Errorf("sysctl %s: %w", sysctl.Name, err)
		}
		n.say("%s: sysctl %s = %s", s.mode, sysctl.Name, sysctl.Value)
	}
	return nil
}

// runInit runs the injected init container to its end.
func (s *scene) runInit(ctx context.Context, n *narrator, opts options, pod *corev1.Pod) error {
	injected, err := initContainer(pod, podplan.InitContainerName)
	if err != nil {
		return err
	}
	c, err := container.New(pod, injected, s.node(map[string]string{"": opts.shuntInit()}))
	if err != nil {
		return fmt.Errorf("container %s: %w", injected.Name, err)
	}
	n.say("%s: %s: %s (%s)", s.mode, injected.Name, shellWords(c.Args), c.Identity())
	p, err := c.Start(ctx, s.network.pod)
	if err == nil {
		err = p.Wait()
	}
	if err != nil {
		return fmt.Errorf("container %s: %w", injected.Name, err)
	}
	for _, line := range p.Output() {
		n.say("%s: %s says: %s", s.mode, injected.Name, line)
	}
	return nil
}

// shellWords prints arguments as one would type them.
func shellWords(args []string) string {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = arg
		if arg == "" || strings.ContainsAny(arg, " *$'\"") {
			words[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// startProxy starts the injected sidecar and waits until its postStart hook has
// ended, as kubelet does before it starts the app, and until it is ready.
func (s *scene) startProxy(ctx context.Context, n *narrator, opts options, pod *corev1.Pod) error {
	injected, err := initContainer(pod, podplan.ProxyContainerName)
	if err != nil {
		return err
	}
	c, err := container.New(pod, injected, s.node(map[string]string{"envoy": opts.envoy}))
	if err != nil {
		return fmt.Errorf("container %s: %w", injected.Name, err)
	}
	n.say("%s: %s: Envoy with the injected bootstrap (%s)", s.mode, injected.Name, c.Identity())
	if s.proxy, err = c.Start(ctx, s.network.pod); err != nil {
		return fmt.Errorf("container %s: %w", injected.Name, err)
	}
	err = s.postStart(ctx, c, injected)
	if err == nil {
		err = s.probe(ctx, injected.ReadinessProbe)
	}
	if err != nil {
		return fmt.Errorf("container %s: %w; its last words: %s", injected.Name, err,
			strings.Join(s.proxy.LastErrors(), "; "))
	}
	n.say("%s: %s: the postStart hook has ended, and the readiness probe passes", s.mode, injected.Name)
	return nil
}

// postStart runs a container's postStart hook in it.
func (s *scene) postStart(ctx context.Context, running container.Container, injected corev1.Container) error {
	if injected.Lifecycle == nil || injected.Lifecycle.PostStart == nil || injected.Lifecycle.PostStart.Exec == nil {
		return errors.New("no postStart hook with a command")
	}
	hook, err := running.Exec(s.node(nil), injected.Lifecycle.PostStart.Exec.Command)
	if err != nil {
		return fmt.Errorf("the postStart hook: %w", err)
	}
	process, err := hook.Start(ctx, s.network.pod)
	if err != nil {
		return fmt.Errorf("the postStart hook: %w", err)
	}
	if err := process.Wait(); err != nil {
		return fmt.Errorf("the postStart hook: %w", err)
	}
	return nil
}

const (
	probeTime  = 20 * time.Second
	probePause = 50 * time.Millisecond // a kubelet has a second, at least
)

// probe repeats an HTTP probe from the node until it passes, over both
// families.
func (s *scene) probe(ctx context.Context, probe *corev1.Probe) error {
	if probe == nil || probe.HTTPGet == nil {
		return errors.New("no readiness probe by HTTP")
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return nil, fmt.Errorf("the probe's address: %w", err)
			}
			return s.network.node.Dial(ctx, "tcp", to, netns.DialOptions{})
		},
		DisableKeepAlives: true,
	}}
	for _, family := range families {
		host := net.JoinHostPort(podAddresses.of(family).String(), strconv.Itoa(probe.HTTPGet.Port.IntValue()))
		for {
			err := get(ctx, client, "http://"+host+probe.HTTPGet.Path)
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("the readiness probe fails: %w", err)
			case <-time.After(probePause):
			}
		}
	}
	return nil
}

func get(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s says %s", url, response.Status)
	}
	return nil
}

// startServers starts the app, on its own port and the one that is left alone,
// and the host outside.
func (s *scene) startServers(n *narrator) error {
	n.say("%s: app: listens on %d and %d (uid %d, gid %d)", s.mode, s.appPort, s.excludedPort(), s.app.UID, s.app.GID)
	for _, server := range []struct {
		ns   *netns.NS
		port uint16
		o    netns.ListenOptions
	}{
		{s.network.pod, s.appPort, netns.ListenOptions{Name: "app", Identity: s.app}},
		{s.network.pod, s.excludedPort(), netns.ListenOptions{Name: "app", Identity: s.app}},
		{s.network.outside, outsidePort, netns.ListenOptions{Name: "outside"}},
		{s.network.outside, s.excludedOutboundPort(), netns.ListenOptions{Name: "outside"}},
	} {
		if server.port == 0 {
			continue
		}
		for _, wildcard := range netns.Wildcards {
			started, err := server.ns.Listen("tcp", netip.AddrPortFrom(wildcard, server.port), server.o)
			if err != nil {
				return err
			}
			s.servers = append(s.servers, started)
		}
	}
	return nil
}

// excludedPort is an inbound port that the pod's annotations leave alone, or
// else one that is always left alone: those of the proxy are not the app's to
// listen on.
func (s *scene) excludedPort() uint16 {
	for _, r := range s.spec.InboundExcludePorts {
		switch r.First {
		case interception.StatusPort, interception.HealthPort, interception.MetricsPort:
		default:
			return r.First
		}
	}
	return interception.SSHPort
}

// excludedOutboundPort is an outbound port that the pod's annotations leave
// alone, 0 when there is none.
func (s *scene) excludedOutboundPort() uint16 {
	if len(s.spec.OutboundExcludePorts) == 0 {
		return 0
	}
	return s.spec.OutboundExcludePorts[0].First
}
