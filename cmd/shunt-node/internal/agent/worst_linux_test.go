//go:build !race

// The race detector needs memory of its own: make verify runs this without it.

package agent

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/test/netns"
)

// TestWorst checks that the longest annotations that are accepted, many at once, keep below the
// memory that the agent has, and that of longer ones no more than a line is told.
func TestWorst(t *testing.T) {
	netns.Require(t)
	a := newAgent(t, true)
	p, _ := newPod(t, interception.SystemRedirect)
	p.text = `["` + strings.Repeat(`x","`, interception.MaxNodeRules/5) + `"]`
	if err := a.begin(t.Context(), p); err == nil || len(err.Error()) > 2*noteLength {
		t.Errorf("%v", err)
	}
	var ports, ranges []string
	for i := range 10_000 {
		ports = append(ports, fmt.Sprint(2*i+1))
		ranges = append(ranges, fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255))
	}
	args := []string{"--backend=nftables", "-m", "TPROXY", "-x", strings.Join(ranges, ",")}
	for _, flag := range []string{"-b", "-q"} {
		args = append(args, flag, strings.Join(ports[:3000], ","))
	}
	text, err := json.Marshal(args)
	if err != nil || len(text) < interception.MaxNodeRules/2 || len(text) > interception.MaxNodeRules {
		t.Fatal(len(text), err)
	}
	var pods []pod
	for range 4 {
		p, _ := newPod(t, interception.SystemTProxy)
		p.text = string(text)
		pods = append(pods, p)
	}
	mostMemory(t)
	a.synchronize(pods)
	awaitIdle(t, a)
	if most, limit := mostMemory(t), int64(100<<20); most > limit { // GOMEMLIMIT of config/node
		t.Errorf("%d MB were in use; the agent has %d", most>>20, limit>>20)
	}
	for _, p := range pods {
		if got := receiptIn(t, p); got.State != kernel.ReceiptDone {
			t.Errorf("receipt %+v", got)
		}
	}
}

// mostMemory returns how much memory this process had at most since the last call.
func mostMemory(t *testing.T) int64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(status), "VmHWM:")
	var kilobytes int64
	if _, err := fmt.Sscan(line, &kilobytes); err != nil {
		t.Fatal(err)
	}
	const resetPeak = "5" // proc_pid_clear_refs(5)
	if err := os.WriteFile("/proc/self/clear_refs", []byte(resetPeak), 0o200); err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10
}
