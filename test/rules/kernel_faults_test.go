//go:build linux

package rules

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/test/netns"
)

// TestFaults makes each fault in a namespace, and expects its cause in what shunt trace and shunt prove
// say of the namespace.
func TestFaults(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy", "nft", "ip")
	t.Parallel()
	init, shunt := buildShuntInit(t), filepath.Join(t.TempDir(), "shunt")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", shunt, "github.com/shunt-dev/shunt/cmd/shunt")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building shunt: %v\n%s", err, out)
	}
	for _, lines := range faultBlocks(t) {
		if len(lines) == 1 { // a group
			continue
		}
		t.Run(lines[0], func(t *testing.T) {
			t.Parallel()
			pod := quietLab(t).Pod
			run(t, pod, init, append(strings.Fields(lines[1]), skipVerify)...)
			run(t, pod, "sh", "-ec", lines[2])
			trace := append([]string{"trace", "--netns", pod.Path()}, strings.Fields(lines[3])...)
			for i, args := range [][]string{trace, {"prove", "--netns", pod.Path()}} {
				want := lines[4+i]
				out, err := exec.CommandContext(t.Context(), shunt, args...).CombinedOutput()
				if !strings.Contains(string(out), want) {
					t.Errorf("shunt %s does not say %q (%v):\n%s", strings.Join(args, " "), want, err, out)
				}
			}
		})
	}
}
