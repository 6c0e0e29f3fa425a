package proxy

import (
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"

	envoyconfig "github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// TestHealthNeedsBothListeners closes one of the two pass-through listeners
// while the other goes on: the proxy must not say that it is well.
func TestHealthNeedsBothListeners(t *testing.T) {
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
