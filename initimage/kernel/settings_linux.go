package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// setting is a sysctl of the namespace that a system rests on.
type setting struct {
	name     string
	system   interception.System
	accepted []string
	why      string
}

// settings are those that decide whether a system works. Others that look as if
// they did, do not: test/rules has connections with each.
var settings = []setting{{
	name: "net.ipv4.tcp_syncookies", system: interception.SystemTProxy, accepted: []string{"0", "1"},
	why: "the answer to a cookie carries no SYN, by which TPROXY would find the proxy's listener",
}}

// RequireSettings reads the sysctls that a system rests on, and names those that
// it does not work with. Its errors are ErrPreflight.
func (h *Host) RequireSettings(system interception.System) error {
	var errs []error
	for _, s := range settings {
		if s.system != system {
			continue
		}
		text, err := os.ReadFile(filepath.Join("/proc/sys", strings.ReplaceAll(s.name, ".", "/")))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel that has no such thing
		}
		if err != nil {
			return fmt.Errorf("%w: reading sysctl %s: %w", ErrPreflight, s.name, err)
		}
		if value := strings.TrimSpace(string(text)); !slices.Contains(s.accepted, value) {
			errs = append(errs, fmt.Errorf("%w: sysctl %s is %s; accepted with system %s: %s (%s)",
				ErrPreflight, s.name, value, system, strings.Join(s.accepted, ", "), s.why))
		}
	}
	return errors.Join(errs...)
}
