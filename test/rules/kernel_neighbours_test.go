//go:build linux

package rules

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// neighbour is what others put into a pod's network namespace, a file of testdata/neighbours. Its
// sections hold the commands that put it there (iptables stands for the command of either backend),
// connections besides those of everyConnection, and shunt-init's exit code unless it is 0; then
// "harm" lists the connections that went the wrong way. "except" names an order, or order and mode,
// that is not tested, and why.
type neighbour struct {
	name, setup, packets, harm, want, except string
}

// everyConnection must take its way with every neighbour, if shunt-init reports success. PROXY is
// the proxy's inbound port, which depends on the mode.
const everyConnection = `
	in tcp 10.0.0.1:8080 -> PROXY
	in tcp [fd00::1]:8080 -> PROXY
	out tcp 10.0.0.9:80 -> redirect 15001
	out tcp [fd00::9]:80 -> redirect 15001
	out uid=1337 gid=1337 tcp 10.0.0.9:80 -> direct
	out uid=1337 gid=1337 tcp [fd00::9]:80 -> direct
	out tcp 127.0.0.1:8080 -> direct
	out udp 10.0.0.9:53 -> direct`

func neighbours(t *testing.T) []neighbour {
	t.Helper()
	files, err := filepath.Glob("testdata/neighbours/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no neighbours", err)
	}
	var all []neighbour
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n := neighbour{name: strings.TrimSuffix(filepath.Base(file), ".txtar"), packets: everyConnection, want: "exit 0"}
		for _, section := range archive.Files {
			text := strings.TrimSpace(string(section.Data))
			switch section.Name {
			case "setup":
				n.setup = text
			case "packets":
				n.packets += "\n" + text
			case "harm":
				n.harm = text
			case "want":
				n.want = text
			case "except":
				n.except = text
			default:
				t.Fatalf("%s: section %s", file, section.Name)
			}
		}
		all = append(all, n)
	}
	return all
}

// beside is Shunt's backend, and whose iptables the neighbour runs.
type beside struct{ ours, theirs interception.Backend }

func (b beside) String() string {
	if b.ours == b.theirs {
		return string(b.ours)
	}
	return string(b.ours) + " beside " + string(b.theirs)
}

var besides = []beside{
	{interception.BackendNFT, interception.BackendNFT}, {interception.BackendLegacy, interception.BackendLegacy},
	{interception.BackendNFTables, interception.BackendNFT}, {interception.BackendNFTables, interception.BackendLegacy},
}

func (n neighbour) usesIptables() bool {
	return slices.ContainsFunc(strings.Split(n.setup, "\n"), func(line string) bool { return strings.HasPrefix(line, "iptables ") })
}

// TestNeighbours runs shunt-init with each neighbour: after it, as with a network plug-in, and
// before it, followed by a second run. shunt-init must not report success if a connection takes
// another way.
func TestNeighbours(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy", "ip", "nft", "sysctl")
	t.Parallel()
	bin := buildShuntInit(t)
	for _, n := range neighbours(t) {
		for _, beside := range besides {
			if beside.ours == interception.BackendNFTables && beside.theirs == interception.BackendLegacy && !n.usesIptables() {
				continue // the same as with iptables-nft
			}
			for _, mode := range []interception.Mode{interception.ModeRedirect, interception.ModeTProxy} {
				orders := []string{"first", "later"}
				if beside.theirs == interception.BackendLegacy {
					orders = orders[:1]
				}
				for _, order := range orders {
					t.Run(fmt.Sprintf("%s/%s/%s/%s", n.name, order, beside, mode), func(t *testing.T) {
						t.Parallel()
						for line := range strings.Lines(n.except) {
							if where, why, _ := strings.Cut(line, ": "); where == order || where == order+" "+string(mode) {
								t.Skip(why)
							}
						}
						n.check(t, bin, beside, mode, order == "later")
					})
				}
			}
		}
	}
}

func (n neighbour) check(t *testing.T, bin string, beside beside, mode interception.Mode, later bool) {
	spec, said, exit := interception.Default(), "", 0
	spec.System = systemOf(mode)
	inbound := map[interception.Mode]string{
		interception.ModeRedirect: "redirect 15006", interception.ModeTProxy: "tproxy 15006",
	}[mode]
	packets, err := crossings(strings.ReplaceAll(ofMode(n.packets, mode), "PROXY", inbound))
	if err != nil {
		t.Fatal(err)
	}
	harm, err := crossings(ofMode(n.harm, mode))
	if err != nil {
		t.Fatal(err)
	}
	args := argumentsOn(beside.ours, "-m "+string(mode))
	a := newArena(t, spec, slices.Concat(packets, harm), func(pod *netns.NS) {
		if later {
			run(t, pod, bin, args...)
		}
		n.enter(t, pod, beside.theirs)
		out, err := pod.Command(t.Context(), bin, args...).CombinedOutput()
		said = strings.TrimSpace(string(out))
		if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
			exit = failed.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
	})
	if got, want := fmt.Sprintf("exit %d", exit), n.wanted(beside.ours, mode); got != want {
		t.Fatalf("%s, want %s; it said %s", got, want, said)
	}
	if exit != 0 {
		packets = harm
	}
	for _, x := range packets {
		if err := a.cross(t.Context(), x); err != nil {
			t.Errorf("it said %s, but %v", said, err)
		}
	}
}

// wanted returns the wanted exit code of shunt-init: that of the last line that is for all, for the
// mode, for the backend, or for both.
func (n neighbour) wanted(backend interception.Backend, mode interception.Mode) string {
	want, keys := n.want, []string{string(mode), string(backend), string(backend) + " " + string(mode)}
	for line := range strings.Lines(n.want) {
		if of, text, is := strings.Cut(line, ": "); is && slices.Contains(keys, of) {
			want = strings.TrimSpace(text)
		}
	}
	return want
}

// ofMode omits the lines that begin with another mode's name.
func ofMode(text string, mode interception.Mode) string {
	var lines []string
	for line := range strings.Lines(text) {
		of, rest, is := strings.Cut(strings.TrimSpace(line), ": ")
		switch {
		case !is:
			lines = append(lines, line)
		case of == string(mode):
			lines = append(lines, rest+"\n")
		}
	}
	return strings.Join(lines, "")
}

// enter runs the neighbour's commands in a pod.
func (n neighbour) enter(t *testing.T, pod *netns.NS, backend interception.Backend) {
	t.Helper()
	for line := range strings.Lines(n.setup) {
		line = strings.TrimSpace(line)
		if rest, is := strings.CutPrefix(line, "iptables "); is {
			line = "iptables-" + string(backend) + " " + rest
		}
		run(t, pod, "sh", "-c", line)
	}
}
