package proxy

import (
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/test/netns"
)

// adminAddress is the address of Envoy's admin interface in these tests.
var adminAddress = netip.MustParseAddrPort("127.0.0.1:15000")

// configured runs Envoy in a namespace with a test's own configuration, and returns when its admin
// interface answers.
func configured(t *testing.T, pod *netns.NS, envoy, config string) {
	t.Helper()
	log := &output{}
	cmd := pod.Command(t.Context(), envoy, "--config-yaml", config, "--disable-hot-restart", "--concurrency", "2", "--log-level", "warning")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The end of the test's context kills it.
	t.Cleanup(func() { _ = cmd.Wait() })
	within(t, "envoy's administration interface answers", log, func() bool {
		status, _ := get(client(pod.Dial), adminAddress.Addr(), adminAddress.Port(), "/ready")
		return status == http.StatusOK
	})
}

// within waits for a condition, and fails with the proxy's log if it does not become true.
func within(t *testing.T, what string, log *output, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if so() {
			return
		}
	}
	t.Fatalf("after 20 s it is not so that %s:\n%s", what, log)
}
