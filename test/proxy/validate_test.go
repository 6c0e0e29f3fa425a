package proxy

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// TestEnvoyAcceptsTheCommandLine has Envoy itself check every bootstrap that
// the injector can write.
func TestEnvoyAcceptsTheCommandLine(t *testing.T) {
	envoy := envoyBinary(t)
	for _, mode := range modes {
		for _, families := range allFamilies {
			t.Run(fmt.Sprint(mode, families), func(t *testing.T) {
				args := append(commandLine(sidecar(t, mode, families)), "--mode", "validate")
				out, err := exec.CommandContext(t.Context(), envoy, args...).CombinedOutput()
				if err != nil {
					t.Fatalf("envoy --mode validate: %v\n%s", err, out)
				}
				for line := range strings.Lines(string(out)) {
					if strings.Contains(line, "[warning]") || strings.Contains(line, "eprecated") {
						t.Errorf("envoy warns: %s", line)
					}
				}
			})
		}
	}
}

// TestEnvoyRefusesNonsense shows that the test above can fail.
func TestEnvoyRefusesNonsense(t *testing.T) {
	envoy := envoyBinary(t)
	args := commandLine(sidecar(t, modes[0], allFamilies[0]))
	for i, arg := range args {
		args[i] = strings.Replace(arg, `"ORIGINAL_DST"`, `"ORIGINAL_DESTINATION"`, 1)
	}
	args = append(args, "--mode", "validate")
	if out, err := exec.CommandContext(t.Context(), envoy, args...).CombinedOutput(); err == nil {
		t.Errorf("envoy accepts an unknown type of cluster:\n%s", out)
	}
}
