//go:build linux

package container

import (
	"fmt"
	"os/exec"
	"path/filepath"
)

// BuildShuntInit builds the init container's program into a folder, and returns
// its path. Paths of this machine stay in it: tests share what is compiled so.
func BuildShuntInit(folder string) (string, error) {
	bin := filepath.Join(folder, "shunt-init")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags", "-s -w", "-o", bin,
		"github.com/shunt-dev/shunt/cmd/shunt-init")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building shunt-init: %w\n%s", err, out)
	}
	return bin, nil
}
