package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// platform is what depends on an architecture.
type platform struct {
	machine elf.Machine
	triplet string // of Debian's library folders
}

var platforms = map[string]platform{
	"amd64": {machine: elf.EM_X86_64, triplet: "x86_64-linux-gnu"},
	"arm64": {machine: elf.EM_AARCH64, triplet: "aarch64-linux-gnu"},
}

// commands are those that shunt-init runs: both backends, both families.
func commands() []string {
	var all []string
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, backend := range []string{"nft", "legacy"} {
			for _, what := range []string{"", "-save", "-restore"} {
				all = append(all, "usr/sbin/"+family+"-"+backend+what)
			}
		}
	}
	return all
}

// extension reports whether a file is an extension of iptables. All of them
// are taken, also those that no rule of Shunt's needs: rules of others have to
// be read, and restored when a change fails. ebtables' and arptables' are not.
func (t *tree) extension(name string) bool {
	dir, base := path.Split(name)
	if dir != "usr/lib/"+t.platform.triplet+"/xtables/" {
		return false
	}
	return strings.HasPrefix(base, "libxt_") || strings.HasPrefix(base, "libipt_") || strings.HasPrefix(base, "libip6t_")
}

// osRelease is where a scanner reads which Debian the packages are of.
const osRelease = "usr/lib/os-release"

// iptables chooses, of all that the packages hold, iptables with its
// extensions and the libraries that these need, the packages' licences, and
// what a vulnerability scanner goes by.
func (t *tree) iptables() (files, error) {
	chosen := files{"run": {mode: fs.ModeDir}} // for the lock of iptables-legacy
	wanted := commands()
	for name := range t.files {
		if t.extension(name) {
			wanted = append(wanted, name)
		}
	}
	if len(wanted) == len(commands()) {
		return nil, errors.New("no extension of iptables in the packages")
	}
	for _, name := range wanted {
		if err := t.choose(name, chosen); err != nil {
			return nil, err
		}
	}
	return chosen, t.document(chosen)
}

// choose takes a file, what it is a link to, and the libraries that it needs.
func (t *tree) choose(name string, chosen files) error {
	if _, done := chosen[name]; done {
		return nil
	}
	held, ok := t.files[name]
	if !ok {
		return fmt.Errorf("no package holds /%s", name)
	}
	if held.mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
		return fmt.Errorf("/%s of package %s is %s; nothing in the image is setuid", name, t.owner[name], held.mode)
	}
	chosen[name] = held
	if held.link != "" {
		return t.choose(target(name, held.link), chosen)
	}
	needs, err := readELF(held.data)
	if err != nil {
		return fmt.Errorf("read /%s: %w", name, err)
	}
	if needs.machine != t.platform.machine {
		return fmt.Errorf("/%s is for %s, want %s", name, needs.machine, t.platform.machine)
	}
	if needs.interpreter != "" {
		if err := t.choose(strings.TrimPrefix(needs.interpreter, "/"), chosen); err != nil {
			return err
		}
	}
	for _, library := range needs.libraries {
		found, err := t.library(library)
		if err != nil {
			return fmt.Errorf("/%s: %w", name, err)
		}
		if err := t.choose(found, chosen); err != nil {
			return err
		}
	}
	return nil
}

// target is what a symbolic link leads to.
func target(name, link string) string {
	if path.IsAbs(link) {
		return strings.TrimPrefix(path.Clean(link), "/")
	}
	return path.Join(path.Dir(name), link)
}

// library finds a library where the dynamic linker does, without a cache.
func (t *tree) library(name string) (string, error) {
	for _, dir := range []string{"lib/" + t.platform.triplet, "usr/lib/" + t.platform.triplet} {
		if _, ok := t.files[path.Join(dir, name)]; ok {
			return path.Join(dir, name), nil
		}
	}
	return "", fmt.Errorf("no package holds the library %s", name)
}

// document adds the licence of each package that something was taken from,
// and what tells a scanner the packages and their versions, at the place where
// it looks in images that have no package manager.
func (t *tree) document(chosen files) error {
	used := map[string]bool{}
	for name := range chosen {
		if pkg, packaged := t.owner[name]; packaged {
			used[pkg] = true
		}
	}
	for pkg := range used {
		licence := "usr/share/doc/" + pkg + "/copyright"
		held, ok := t.files[licence]
		if !ok || held.link != "" {
			return fmt.Errorf("package %s has no licence at /%s", pkg, licence)
		}
		chosen[licence] = file{mode: 0o644, data: held.data}
		chosen["var/lib/dpkg/status.d/"+pkg] = file{mode: 0o644, data: t.control[pkg]}
	}
	release, ok := t.files[osRelease]
	if !ok {
		return fmt.Errorf("no package holds /%s", osRelease)
	}
	chosen["etc/os-release"] = file{mode: 0o644, data: release.data}
	return nil
}

// requirements are what a program or library says that it needs.
type requirements struct {
	machine     elf.Machine
	interpreter string
	libraries   []string
}

func readELF(data []byte) (requirements, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return requirements{}, fmt.Errorf("not a program or library: %w", err)
	}
	defer f.Close()
	needs := requirements{machine: f.Machine}
	if section := f.Section(".interp"); section != nil {
		text, err := section.Data()
		if err != nil {
			return needs, fmt.Errorf("read its interpreter: %w", err)
		}
		needs.interpreter = string(bytes.TrimRight(text, "\x00"))
	}
	needs.libraries, err = f.ImportedLibraries()
	if err != nil {
		return needs, fmt.Errorf("read its libraries: %w", err)
	}
	return needs, nil
}
