package bench_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// setting is a set of rules to install, and the backend to install it in.
type setting struct {
	backend interception.Backend
	system  interception.System
	stack   string // "dual" for both families, "single" for IPv4
}

func (s setting) String() string {
	return fmt.Sprintf("%s %s %s", s.backend, s.spec().Mode(), s.stack)
}

func (s setting) spec() interception.Spec { return interception.DefaultFor(s.system) }

func (s setting) families() []ruleset.Family {
	if s.stack == "single" {
		return []ruleset.Family{ruleset.IPv4}
	}
	return ruleset.Families
}

// settings are those that are measured: each mode, over one family and both,
// in each backend.
func settings() []setting {
	var all []setting
	for _, backend := range []interception.Backend{interception.BackendNFT, interception.BackendNFTables, interception.BackendLegacy} {
		for _, system := range []interception.System{interception.SystemRedirect, interception.SystemTProxy} {
			for _, stack := range []string{"single", "dual"} {
				all = append(all, setting{backend, system, stack})
			}
		}
	}
	return all
}

// command is a program and its arguments.
type command []string

// way is a way to install rules: the commands that do it, in a namespace
// where those of before have been run.
type way struct {
	id            string // in the benchmark's name
	name          string // in the table
	before, timed []command
}

// allWays is how many ways all settings have.
func allWays() int {
	n := 0
	for _, s := range settings() {
		if n += 6; s.backend == interception.BackendNFTables {
			n-- // without a call a rule
		}
	}
	return n
}

// ways returns the ways to install a setting's rules, the first of them the
// floor that the others are measured against. Files that they read are
// put into dir.
func (s setting) ways(b *testing.B, shuntInit, dir string) []way {
	b.Helper()
	args := command{shuntInit, "-m", string(s.spec().Mode())}
	if s.backend != interception.BackendNFT {
		args = append(args, "--backend="+string(s.backend)) // auto finds nft
	}
	if s.stack == "single" {
		args = append(args, "--ipv6=off")
	}
	verified, unverified := []command{args}, []command{append(args[:len(args):len(args)], "--skip-verify")}
	floors := []way{{id: "floor", name: "nft -f, no routing", timed: s.loads(b, dir)}}
	if s.backend != interception.BackendNFTables {
		floors = []way{
			{id: "floor", name: "iptables-restore, no routing", timed: s.restores(b, dir)},
			{id: "calls", name: "an iptables call a rule, no routing", timed: s.calls(b)},
		}
	}
	return append(floors, []way{
		{id: "first", name: "shunt-init --skip-verify", timed: unverified},
		{id: "first-verified", name: "shunt-init", timed: verified},
		{id: "again", name: "shunt-init --skip-verify, again", before: unverified, timed: unverified},
		{id: "again-verified", name: "shunt-init, again", before: verified, timed: verified},
	}...)
}

// loads is one call of nft(8), with the tables of all families.
func (s setting) loads(b *testing.B, dir string) []command {
	b.Helper()
	var text string
	for _, family := range s.families() {
		table, err := nft.Compile(ruleset.Build(s.spec(), family))
		if err != nil {
			b.Fatal(err)
		}
		text += table.String()
	}
	file := filepath.Join(dir, strings.ReplaceAll(s.String(), " ", "-")+".nft")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	return []command{{"nft", "-f", file}}
}

// program is a command of iptables of the setting's backend, such as save.
func (s setting) program(family ruleset.Family, what string) string {
	name := map[ruleset.Family]string{ruleset.IPv4: "iptables-", ruleset.IPv6: "ip6tables-"}[family] + string(s.backend)
	if what != "" {
		name += "-" + what
	}
	return name
}

// wait has legacy commands wait for the lock that all of the machine share.
func (s setting) wait() []string {
	if s.backend == interception.BackendLegacy {
		return []string{"--wait=60"} // seconds
	}
	return nil
}

func (s setting) restores(b *testing.B, dir string) []command {
	b.Helper()
	var all []command
	for _, family := range s.families() {
		file := filepath.Join(dir, fmt.Sprintf("%s-%s.rules", strings.ReplaceAll(s.String(), " ", "-"), family))
		if err := os.WriteFile(file, []byte(ruleset.Build(s.spec(), family).String()), 0o600); err != nil {
			b.Fatal(err)
		}
		restore := append(command{s.program(family, "restore")}, s.wait()...)
		all = append(all, append(restore, file))
	}
	return all
}

// calls makes a command of each line that iptables-restore is given.
func (s setting) calls(b *testing.B) []command {
	b.Helper()
	var all []command
	for _, family := range s.families() {
		table := ""
		for line := range strings.Lines(ruleset.Build(s.spec(), family).String()) {
			line = strings.TrimSuffix(line, "\n")
			call := append(command{s.program(family, ""), "-t", table}, s.wait()...)
			switch {
			case strings.HasPrefix(line, "*"):
				table = line[1:]
			case strings.HasPrefix(line, ":"):
				all = append(all, append(call, "-N", strings.Fields(line[1:])[0]))
			case strings.HasPrefix(line, "-A "):
				all = append(all, append(call, words(line)...))
			}
		}
	}
	return all
}

// words cuts a line of iptables-save into arguments. Only comments are between
// quotation marks, and ours hold none.
func words(line string) []string {
	var all []string
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			all = append(all, part)
		} else {
			all = append(all, strings.Fields(part)...)
		}
	}
	return all
}
