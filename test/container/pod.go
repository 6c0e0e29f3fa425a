//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// InjectedPod is a running injected pod in a Lab: its sysctls are set, its init
// containers have run, and its native sidecar has started. The test stands in for
// the pod's own containers.
type InjectedPod struct {
	*netns.Lab
	Manifest *corev1.Pod
	Node     Node
	Proxy    *Process  // the native sidecar; nil before its start
	As       Container // the sidecar's identity
}

// startTime is how long a sidecar may take to start on a busy machine.
const startTime = 60 * time.Second

// StartPod starts a pod as kubelet does: the init containers one after the other,
// and a native sidecar until its postStart hook has ended and its startup probe
// passes. Then it waits until the sidecar is ready. Its error is that of a
// container. Close the returned pod in any case.
func StartPod(ctx context.Context, lab *netns.Lab, manifest *corev1.Pod, node Node) (*InjectedPod, error) {
	result := &InjectedPod{Lab: lab, Manifest: manifest, Node: node}
	if security := manifest.Spec.SecurityContext; security != nil {
		for _, s := range security.Sysctls {
			if err := lab.Pod.Sysctl(strings.ReplaceAll(s.Name, ".", "/"), s.Value); err != nil {
				return result, fmt.Errorf("sysctl %s: %w", s.Name, err)
			}
		}
	}
	for _, c := range manifest.Spec.InitContainers {
		if err := result.run(ctx, c); err != nil {
			return result, fmt.Errorf("container %s: %w", c.Name, err)
		}
	}
	return result, nil
}

// SetUpItself changes an injected pod whose gate waits for the node's agent: its init
// container writes the same rules, and the pod has the sysctls that the agent sets.
func SetUpItself(manifest *corev1.Pod) {
	for i := range manifest.Spec.InitContainers {
		c := &manifest.Spec.InitContainers[i]
		if len(c.Args) == 0 || c.Args[0] != interception.GateCommand {
			continue
		}
		c.Args = c.Args[1:]
		c.SecurityContext.RunAsUser, c.SecurityContext.RunAsGroup, c.SecurityContext.RunAsNonRoot = new(int64), new(int64), new(bool)
		c.SecurityContext.Capabilities.Add = []corev1.Capability{"NET_ADMIN"}
	}
	security := manifest.Spec.SecurityContext
	if security == nil {
		security = &corev1.PodSecurityContext{}
		manifest.Spec.SecurityContext = security
	}
	for _, name := range []string{"net.ipv4.tcp_fwmark_accept", "net.ipv4.fwmark_reflect", "net.ipv6.fwmark_reflect"} {
		security.Sysctls = append(security.Sysctls, corev1.Sysctl{Name: name, Value: "1"})
	}
}

// Close kills the proxy, and ends both namespaces of the Lab.
func (p *InjectedPod) Close() error {
	if p.Proxy != nil {
		_ = p.Proxy.Signal(syscall.SIGKILL)
		_ = p.Proxy.Wait()
	}
	return p.Lab.Close()
}

func (p *InjectedPod) run(ctx context.Context, c corev1.Container) error {
	made, err := New(p.Manifest, c, p.Node)
	if err != nil {
		return err
	}
	process, err := made.Start(ctx, p.Pod)
	if err != nil {
		return err
	}
	if c.RestartPolicy == nil {
		return process.Wait()
	}
	p.Proxy, p.As = process, made
	if c.Lifecycle != nil && c.Lifecycle.PostStart != nil && c.Lifecycle.PostStart.Exec != nil {
		if err := p.Exec(ctx, c.Lifecycle.PostStart.Exec.Command); err != nil {
			return fmt.Errorf("its postStart hook says %w; it says:\n%s", err, p.Output())
		}
	}
	if err := p.passes(ctx, c.StartupProbe); err != nil {
		return fmt.Errorf("startup: %w", err)
	}
	if err := p.passes(ctx, c.ReadinessProbe); err != nil {
		return fmt.Errorf("readiness: %w", err)
	}
	return nil
}

// passes probes until the probe passes.
func (p *InjectedPod) passes(ctx context.Context, probe *corev1.Probe) error {
	deadline := time.Now().Add(startTime)
	for {
		err := p.probe(ctx, probe)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the probe says %w after %s; the proxy says:\n%s", err, startTime, p.Output())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// probe probes as kubelet does: the pod's first address from outside, or in the
// container.
func (p *InjectedPod) probe(ctx context.Context, probe *corev1.Probe) error {
	switch {
	case probe == nil:
		return nil
	case probe.Exec != nil:
		return p.Exec(ctx, probe.Exec.Command)
	case probe.HTTPGet != nil:
		at := netip.AddrPortFrom(p.Node.PodIPs[0], uint16(probe.HTTPGet.Port.IntValue()))
		_, err := Get(ctx, p.Outside, netns.DialOptions{Source: netns.OutsideIPv4}, at, probe.HTTPGet.Path)
		return err
	default:
		return fmt.Errorf("a probe of another kind than exec and httpGet: %v", probe)
	}
}

// Exec runs a command in the sidecar's container, as kubelet runs a hook.
func (p *InjectedPod) Exec(ctx context.Context, command []string) error {
	c, err := p.As.Exec(p.Node, command)
	if err != nil {
		return err
	}
	process, err := c.Start(ctx, p.Pod)
	if err != nil {
		return err
	}
	return process.Wait()
}

// Output returns everything that the sidecar has printed.
func (p *InjectedPod) Output() string {
	if p.Proxy == nil {
		return ""
	}
	return strings.Join(append(p.Proxy.Errors(), p.Proxy.Output()...), "\n")
}

// Get requests a page from within a namespace. A status other than 200 is an error.
func Get(ctx context.Context, from *netns.NS, options netns.DialOptions, address netip.AddrPort, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return from.Dial(ctx, "tcp", address, options)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s%s", address, path), http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s%s: %s %s", address, path, response.Status, body)
	}
	return body, nil
}
