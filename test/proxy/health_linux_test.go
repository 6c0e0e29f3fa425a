package proxy

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	envoyconfig "github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// TestHealthNeedsBothListeners closes one of the two pass-through listeners: the proxy must not
// report that it is healthy.
func TestHealthNeedsBothListeners(t *testing.T) {
	t.Parallel()
	p := envoyWithoutRules(t, interception.ModeTProxy)
	inside, outside := client(dialer(p.Pod.Dial)), client(fromOutside(p.Lab))
	pods := []netip.Addr{netns.PodIPv4, netns.PodIPv6}
	for _, pod := range pods {
		if status, body := get(outside, pod, interception.HealthPort, envoyconfig.HealthPath); status != http.StatusOK {
			t.Errorf("%s, both listeners open: status %d %s, want 200", pod, status, body)
		}
	}
	response, err := inside.Post(fmt.Sprintf("http://127.0.0.1:%d/drain_listeners?inboundonly", interception.AdminPort), "", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	for _, pod := range pods {
		status := 0
		for deadline := time.Now().Add(10 * time.Second); status != http.StatusServiceUnavailable; time.Sleep(20 * time.Millisecond) {
			if status, _ = get(outside, pod, interception.HealthPort, envoyconfig.HealthPath); time.Now().After(deadline) {
				t.Fatalf("%s, inbound listener closed: status %d, want 503", pod, status)
			}
		}
	}
}

// TestWithoutIPv6 checks a pod on a node without IPv6, where Envoy cannot even read an IPv6
// address: its bootstrap has none then.
func TestWithoutIPv6(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			injected := newPod(t, mode, nil, nil)
			if injected.Spec.SecurityContext == nil {
				injected.Spec.SecurityContext = &corev1.PodSecurityContext{}
			}
			for _, link := range []string{"all", "default", "lo"} {
				injected.Spec.SecurityContext.Sysctls = append(injected.Spec.SecurityContext.Sysctls,
					corev1.Sysctl{Name: "net.ipv6.conf." + link + ".disable_ipv6", Value: "1"})
			}
			p := startPod(t, injected, map[string]string{envoy: envoyBinary(t)}, nil)
			inside, outside := client(dialer(p.Pod.Dial)), client(fromOutside(p.Lab))
			if status, said := get(outside, netns.PodIPv4, interception.HealthPort, envoyconfig.HealthPath); status != http.StatusOK {
				t.Errorf("status %d %s, want 200", status, said)
			}
			_, listeners := get(inside, netip.MustParseAddr("127.0.0.1"), interception.AdminPort, "/listeners")
			if !strings.Contains(listeners, "virtualInbound::0.0.0.0:15006") || strings.Contains(listeners, "[::]") {
				t.Errorf("Envoy has the listeners\n%s", listeners)
			}
		})
	}
}
