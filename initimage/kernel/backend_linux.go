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

// backend is one of the two sets of iptables commands, or nf_tables itself.
type backend struct {
	name    interception.Backend
	version string // of the iptables package, such as 1.8.9; "" for nf_tables
	path    string // of iptables-nft or iptables-legacy; "" for nf_tables
	why     string // it was chosen; "" if it was asked for
}

// String returns the backend and its version, for messages.
func (b backend) String() string {
	if b.native() {
		return string(b.name)
	}
	return strings.TrimSpace("iptables-" + string(b.name) + " " + b.version)
}

func (b backend) native() bool { return b.name == interception.BackendNFTables }

// findBackend looks for the commands of a backend on PATH.
func findBackend(name interception.Backend) (backend, error) {
	if name == interception.BackendNFTables {
		return backend{name: name}, nil
	}
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

// choice is which backends to use.
type choice struct {
	first   backend
	others  []interception.Backend // to use instead if the first cannot take the rules
	formers []backend              // those that may hold rules of Shunt, which have to go
}

// backends are all of them. Where several hold rules of Shunt, auto stays with the
// first.
var backends = []interception.Backend{interception.BackendNFTables, interception.BackendNFT, interception.BackendLegacy}

// chooseBackend returns the backends to use. Looking changes nothing: a legacy
// table, which the kernel creates when it is listed, is listed only if it exists.
//
//	wanted | rules of Shunt are in | rules of others are in | uses
//	auto   | X                     |                        | X
//	auto   | none                  | legacy, and not nft    | legacy, nft or nftables
//	auto   | none                  | anything else          | nft, nftables or legacy
//	X      | X, or none            |                        | X
//	X      | Y                     |                        | X, and takes Y's out
//
// Of several, the first is used that is in this image and takes the rules here.
func chooseBackend(ctx context.Context, wanted interception.Backend) (choice, error) {
	var chosen choice
	holds := map[interception.Backend]int{}
	for _, name := range backends {
		if name == wanted {
			continue
		}
		held, err := contentOf(ctx, name, wanted == interception.BackendAuto)
		if err != nil {
			return choice{}, err
		}
		holds[name] = held
		if held == holdsOurs {
			former, err := findBackend(name)
			if err != nil {
				return choice{}, fmt.Errorf("rules of Shunt are in iptables-%s here: %w", name, err)
			}
			chosen.formers = append(chosen.formers, former)
		}
	}
	if wanted != interception.BackendAuto {
		var err error
		chosen.first, err = findBackend(wanted)
		return chosen, err
	}
	if len(chosen.formers) > 0 {
		chosen.first, chosen.formers = chosen.formers[0], chosen.formers[1:]
		chosen.first.why = "it holds the rules already"
		return chosen, nil
	}
	return chooseNew(holds)
}

// chooseNew chooses a backend for a namespace without rules of Shunt.
func chooseNew(holds map[interception.Backend]int) (choice, error) {
	const nft, native, legacy = interception.BackendNFT, interception.BackendNFTables, interception.BackendLegacy
	order := []interception.Backend{nft, native, legacy}
	if holds[legacy] > holds[nft] {
		order = []interception.Backend{legacy, nft, native}
	}
	why := ""
	for i, name := range order {
		b, err := findBackend(name)
		if err != nil {
			if name == legacy && holds[name] == holdsForeign { // nobody else can read them
				return choice{}, fmt.Errorf("this namespace has %s tables: %w", name, err)
			}
			why = fmt.Sprintf("there is no iptables-%s", name)
			continue
		}
		b.why = why
		return choice{first: b, others: order[i+1:]}, nil
	}
	return choice{}, nil // not reached: nf_tables takes no command
}

// What a backend holds, by how much it speaks for using that backend.
const (
	holdsNothing = iota
	holdsForeign
	holdsOurs
)

// contentOf returns what a backend holds. Rules of others, which take a command to
// read, are of no interest if another backend was asked for.
func contentOf(ctx context.Context, name interception.Backend, others bool) (int, error) {
	if name == interception.BackendNFTables {
		return nativeContent()
	}
	has, err := hasTables(name)
	if err != nil || !has {
		return holdsNothing, err
	}
	if name == interception.BackendNFT {
		if ours, err := nftHoldsOurs(); err != nil || ours {
			return holdsOurs, err
		}
		if !others {
			return holdsNothing, nil
		}
	}
	b, err := findBackend(name)
	if err != nil {
		return holdsForeign, nil //nolint:nilerr // what it holds cannot be told, and chooseNew knows why
	}
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

// hasTables reports whether a backend of iptables has any table of either family
// here.
func hasTables(name interception.Backend) (bool, error) {
	names, err := backend{name: name}.tables(ruleset.Families...)
	return len(names) > 0, err
}

// tables returns the names of the tables that a backend has here.
func (b backend) tables(families ...ruleset.Family) ([]string, error) {
	if b.name == interception.BackendNFT {
		return nftTables(families...)
	}
	var all []string
	for _, family := range families {
		names, err := legacyTables(family)
		if err != nil {
			return nil, err
		}
		all = append(all, names...)
	}
	return all, nil
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
