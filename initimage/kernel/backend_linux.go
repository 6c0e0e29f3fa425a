package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"github.com/coreos/go-iptables/iptables"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// backend is one of the two sets of iptables commands.
type backend struct {
	name    interception.Backend
	version string // of the iptables package, such as 1.8.9
	path    string // of iptables-nft or iptables-legacy
}

// findBackend looks for the commands of a backend on PATH.
func findBackend(name interception.Backend) (backend, error) {
	command := "iptables-" + string(name)
	ipt, err := iptables.New(iptables.Path(command))
	if err != nil {
		return backend{}, fmt.Errorf("finding %s: %w", command, err)
	}
	path, err := exec.LookPath(command)
	if err != nil {
		return backend{}, fmt.Errorf("finding %s: %w", command, err)
	}
	major, minor, patch := ipt.GetIptablesVersion()
	return backend{name: name, version: fmt.Sprintf("%d.%d.%d", major, minor, patch), path: path}, nil
}

// command returns the path of iptables-save or iptables-restore, or of its
// IPv6 twin: they lie side by side.
func (b backend) command(family ruleset.Family, what string) string {
	dir := strings.TrimSuffix(b.path, "iptables-"+string(b.name))
	tool := "iptables-"
	if family == ruleset.IPv6 {
		tool = "ip6tables-"
	}
	return dir + tool + string(b.name) + "-" + what
}

// chooseBackend settles which commands to use. With auto it is the backend
// that holds rules in this namespace already, Shunt's before others', and nft
// where neither does. Looking changes nothing: the legacy tables, which come
// into being when they are listed, are listed only where they exist.
func chooseBackend(ctx context.Context, wanted interception.Backend) (backend, error) {
	if wanted != interception.BackendAuto {
		return findBackend(wanted)
	}
	names, err := legacyTables()
	if err != nil {
		return backend{}, err
	}
	if len(names) == 0 {
		return findBackend(interception.BackendNFT)
	}
	legacy, err := findBackend(interception.BackendLegacy)
	if err != nil {
		return backend{}, fmt.Errorf("this namespace has legacy tables %v: %w", names, err)
	}
	nft, err := findBackend(interception.BackendNFT)
	if err != nil {
		return legacy, nil //nolint:nilerr // without nft commands there is no choice to make
	}
	inNFT, err := rulesIn(ctx, nft)
	if err != nil {
		return backend{}, err
	}
	inLegacy, err := rulesIn(ctx, legacy)
	if err != nil {
		return backend{}, err
	}
	if inLegacy > inNFT {
		return legacy, nil
	}
	return nft, nil
}

// How much a namespace's rules speak for their backend.
const (
	holdsNothing = iota
	holdsForeign
	holdsOurs
)

func rulesIn(ctx context.Context, b backend) (int, error) {
	most := holdsNothing
	for _, family := range ruleset.Families {
		text, err := runCommand(ctx, "", b.command(family, "save"))
		if err != nil {
			return most, err
		}
		switch {
		case strings.Contains(text, ":"+ruleset.ChainPrefix):
			return holdsOurs, nil
		case strings.Contains(text, "\n-A "):
			most = holdsForeign
		}
	}
	return most, nil
}

// legacyTables returns the names of the legacy tables that this namespace has.
func legacyTables() ([]string, error) {
	var names []string
	for _, file := range []string{"/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"} {
		text, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("looking for legacy tables: %w", err)
		}
		names = append(names, strings.Fields(string(text))...)
	}
	return names, nil
}

// runCommand runs a command in the namespace of the calling thread and returns
// what it printed; its error is what it said.
func runCommand(ctx context.Context, stdin, path string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", path, err, strings.Join(strings.Fields(errs.String()), " "))
	}
	return out.String(), nil
}
