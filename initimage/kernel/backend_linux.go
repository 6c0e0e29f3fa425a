package kernel

import (
	"context"
	"fmt"
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

// command returns the path of iptables-save or iptables-restore, or of its IPv6
// twin in the same directory.
func (b backend) command(family ruleset.Family, what string) string {
	dir := strings.TrimSuffix(b.path, "iptables-"+string(b.name))
	tool := "iptables-"
	if family == ruleset.IPv6 {
		tool = "ip6tables-"
	}
	return dir + tool + string(b.name) + "-" + what
}

// chooseBackend returns the backend to use. With auto it is the one that holds
// rules in this namespace already, Shunt's before others', and nft if neither does.
// If Shunt has rules in one backend, asking for the other is an error: there would
// be two sets of rules. Looking changes nothing: a legacy table, which the kernel
// creates when it is listed, is listed only if it exists.
func chooseBackend(ctx context.Context, wanted interception.Backend) (backend, error) {
	names := map[interception.Backend]bool{}
	for _, name := range backends {
		has, err := hasTables(name)
		if err != nil {
			return backend{}, err
		}
		names[name] = has
	}
	other := map[interception.Backend]interception.Backend{
		interception.BackendNFT: interception.BackendLegacy, interception.BackendLegacy: interception.BackendNFT,
		interception.BackendAuto: interception.BackendLegacy,
	}[wanted]
	if !names[other] {
		if wanted == interception.BackendAuto {
			wanted = interception.BackendNFT
		}
		return findBackend(wanted)
	}
	return chooseByRules(ctx, wanted)
}

var backends = []interception.Backend{interception.BackendNFT, interception.BackendLegacy}

// chooseByRules chooses the backend where both may hold rules.
func chooseByRules(ctx context.Context, wanted interception.Backend) (backend, error) {
	found, holds := map[interception.Backend]backend{}, map[interception.Backend]int{}
	for _, name := range backends {
		b, err := findBackend(name)
		if err != nil {
			if has, _ := hasTables(name); has || wanted == name {
				return backend{}, fmt.Errorf("this namespace has %s tables: %w", name, err)
			}
			continue
		}
		found[name] = b
		if holds[name], err = contentOf(ctx, b); err != nil {
			return backend{}, err
		}
	}
	nft, legacy := interception.BackendNFT, interception.BackendLegacy
	choice := wanted
	if wanted == interception.BackendAuto {
		choice = nft
		if holds[legacy] > holds[nft] {
			choice = legacy
		}
	}
	for _, name := range backends {
		if name != choice && holds[name] == holdsOurs {
			return backend{}, fmt.Errorf("rules of Shunt are in iptables-%s here; accepted: --backend=%s, or --remove there first",
				name, name)
		}
	}
	return found[choice], nil
}

// What a backend holds, by how much it speaks for using that backend.
const (
	holdsNothing = iota
	holdsForeign
	holdsOurs
)

func contentOf(ctx context.Context, b backend) (int, error) {
	most := holdsNothing
	for _, family := range ruleset.Families {
		text, err := b.save(ctx, family)
		switch {
		case err != nil:
			return most, err
		case strings.Contains(text, ":"+ruleset.ChainPrefix):
			return holdsOurs, nil
		case strings.Contains(text, "\n-A "):
			most = holdsForeign
		}
	}
	return most, nil
}

// hasTables reports whether a backend has any table of either family here.
func hasTables(name interception.Backend) (bool, error) {
	for _, family := range ruleset.Families {
		names, err := backend{name: name}.tables(family)
		if err != nil || len(names) > 0 {
			return len(names) > 0, err
		}
	}
	return false, nil
}

// tables returns the names of the tables that a backend has here.
func (b backend) tables(family ruleset.Family) ([]string, error) {
	if b.name == interception.BackendNFT {
		return nftTables(family)
	}
	return legacyTables(family)
}

// save returns the rules of a family as iptables-save prints them. It runs no
// command if there are no tables.
func (b backend) save(ctx context.Context, family ruleset.Family) (string, error) {
	names, err := b.tables(family)
	if err != nil || len(names) == 0 {
		return "", err
	}
	if b.name == interception.BackendLegacy {
		if err := requireNetRaw(fmt.Sprintf("read the rules that are in its tables here (%s: %s)",
			family, strings.Join(names, ", "))); err != nil {
			return "", fmt.Errorf("%w; or delete those rules", err)
		}
	}
	return runCommand(ctx, "", b.command(family, "save"))
}

// checkCompatible looks for tables that iptables-nft cannot read. iptables-nft-save
// only mentions them in a comment, and exits with 0; iptables-nft-restore would
// still write to them.
func checkCompatible(text string) error {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "# Table ") && strings.Contains(line, "is incompatible") {
			_, name, _ := strings.Cut(line, "`")
			name, _, _ = strings.Cut(name, "'")
			return fmt.Errorf("the table %s holds native nft rules of others, so that iptables-nft cannot read it; "+
				"accepted: --backend=legacy, or delete those rules", name)
		}
	}
	return nil
}

// runCommand runs a command in the namespace of the calling thread and returns its
// output. Its error holds what the command wrote to stderr.
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
