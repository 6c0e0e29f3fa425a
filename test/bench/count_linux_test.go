package bench_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// counter counts the programs that a way runs. In place of PATH it has a
// folder with a name for every program on PATH; behind each is a script that
// notes the call, and becomes the program. A program that is run by a path of
// another folder is not counted; shunt-init and iptables run none so.
type counter struct {
	dir, log string
}

// shim becomes the program of its own name.
const shim = `#!/bin/sh
name=${0##*/}
echo "$name" >>"$SHUNT_BENCH_LOG"
IFS=:
for dir in $SHUNT_BENCH_PATH; do
	[ ! -x "$dir/$name" ] || exec "$dir/$name" "$@"
done
echo "$name: not found" >&2
exit 127
`

// newCounter makes the folder of a counter, which counts the named programs
// too, wherever they are.
func newCounter(b *testing.B, dir string, more ...string) counter {
	b.Helper()
	c := counter{dir: dir, log: dir + ".log"}
	script := dir + ".sh"
	err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(script, []byte(shim), 0o700))
	if err != nil {
		b.Fatal(err)
	}
	path := os.Getenv("PATH")
	for _, program := range more {
		path = filepath.Dir(program) + string(filepath.ListSeparator) + path
	}
	for _, from := range filepath.SplitList(path) {
		entries, err := os.ReadDir(from)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range entries {
			if err := os.Symlink(script, filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrExist) {
				b.Fatal(err)
			}
		}
	}
	b.Setenv("SHUNT_BENCH_LOG", c.log)
	b.Setenv("SHUNT_BENCH_PATH", path)
	return c
}

// processes returns how many programs a way runs, its own first ones included.
// It also holds that the way ends with the rules of the setting.
func (c counter) processes(b *testing.B, s setting, w way) int {
	b.Helper()
	ns := newNamespace(b)
	defer ns.Close()
	if _, err := run(b.Context(), ns, w.before, nil); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(c.log, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	var counted []command
	for _, one := range w.timed {
		counted = append(counted, append(command{filepath.Join(c.dir, filepath.Base(one[0]))}, one[1:]...))
	}
	if _, err := run(b.Context(), ns, counted, append(os.Environ(), "PATH="+c.dir)); err != nil {
		b.Fatal(err)
	}
	for _, family := range s.families() {
		have, err := rulesIn(b.Context(), ns, s, family)
		if err != nil {
			b.Fatal(err)
		}
		want := ruleset.Build(s.spec(), family)
		want.Routing = ruleset.Routing{} // iptables-save does not show it
		if s.backend == interception.BackendNFTables {
			want = nft.Normal(want)
		}
		if diff := ruleset.Diff(want, have.Owned()); diff != nil {
			b.Fatalf("%s, %s leaves other rules than it should: %q", s, w.name, diff)
		}
	}
	calls, err := os.ReadFile(c.log)
	if err != nil {
		b.Fatal(err)
	}
	return bytes.Count(calls, []byte("\n"))
}
