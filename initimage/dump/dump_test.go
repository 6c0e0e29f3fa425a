package dump_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/shunt-dev/shunt/initimage/dump"
	"github.com/shunt-dev/shunt/initimage/trace"
)

var update = flag.Bool("update", false, "write the wanted part of the cases")

// TestCases reads the files of each case, and compares the pod with its section "want".
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/cases/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, inputs := "", archive.Files[:0:0]
			var given []dump.File
			for _, f := range archive.Files {
				if f.Name == "want" {
					want = string(f.Data)
					continue
				}
				inputs = append(inputs, f)
				given = append(given, dump.File{Name: f.Name, Text: string(f.Data)})
			}
			got := describe(dump.Read("pod", given))
			if *update {
				inputs = append(inputs, txtar.File{Name: "want", Data: []byte(got)})
				archive.Files = inputs
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// describe prints what was read.
func describe(pod trace.Pod, notes []string, err error) string {
	if err != nil {
		return fmt.Sprintf("error: %v\n", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "proxy: %+v\n", pod.Proxy)
	for _, note := range notes {
		fmt.Fprintf(&b, "note: %s\n", note)
	}
	for _, side := range pod.Sides {
		fmt.Fprintf(&b, "\n%s: %v by %s, invented %t, interfaces %v, no localnet %t\n", side.Family, side.Host.Addresses, side.Host.Uplink,
			side.Invented, side.Host.Interfaces, side.Host.NoLocalnet)
		for _, line := range side.Unread {
			fmt.Fprintf(&b, "unread: %s\n", line)
		}
		fmt.Fprintf(&b, "routing: %+v\n", side.Routing)
		for _, set := range side.Sets {
			text := set.String()
			if i := strings.Index(text, "\n# ip"); i >= 0 {
				text = text[:i+1]
			}
			fmt.Fprintf(&b, "set %q:\n%s", set.Party, text)
			for _, table := range set.Tables {
				for _, c := range table.Chains {
					if c.Base != nil {
						fmt.Fprintf(&b, "%s %s: %+v %s\n", table.Name, c.Name, *c.Base, c.Policy)
					}
				}
			}
		}
	}
	return b.String()
}

// TestErrorsHaveTheirPlace checks that an error names the file and the line.
func TestErrorsHaveTheirPlace(t *testing.T) {
	const before = "# ip rule\n0:\tfrom all lookup local\n\n"
	for _, bad := range []struct {
		text string
		line int
	}{
		{"hello", 4},
		{"*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT --nonsense 1\nCOMMIT\n", 6},
		{"*nat\n:OUTPUT ACCEPT [0:0]\n", 4},
		{"*nat\nCOMMIT\n# Completed on\n*nonsense\nCOMMIT\n", 7},
		{"{\"nftables\": [{\"rule\": {\"family\": \"ip\", \"table\": \"t\", \"chain\": \"c\", \"expr\": []}}]}", 4},
		{"{\"nftables\": [", 4},
		{"[{\"color\": 1}]", 4},
		{"1: from all fwmark red lookup 5", 4},
		{"table ip nat {\n}\n", 4},
		{"[]\n[] []\n", 5},
	} {
		_, _, err := dump.Read("pod", []dump.File{{Name: "a.txt", Text: before + bad.text}})
		var placed *dump.Error
		if !errors.As(err, &placed) || placed.File != "a.txt" || placed.Line != bad.line {
			t.Errorf("%q: %v; want an error of a.txt:%d", bad.text, err, bad.line)
		}
	}
}

// TestLinear reads large dumps of a stranger, of the kinds whose parts name each other. Work that is
// not linear would take minutes.
func TestLinear(t *testing.T) {
	const many = 25_000
	lines := func(head, line, tail string) string {
		var b strings.Builder
		b.WriteString(head)
		for i := range many {
			b.WriteString(strings.ReplaceAll(line, "%", fmt.Sprint(i)))
		}
		b.WriteString(tail)
		return b.String()
	}
	const (
		base = `,{"chain": {"family": "inet", "table": "t", "name": "c%", "hook": "output", "prio": 0, "type": "nat"}}` +
			`,{"rule": {"family": "inet", "table": "t", "chain": "c%", "expr": [{"jump": {"target": "c0"}}]}}`
		shunt = `{"nftables": [{"table": {"family": "ip", "name": "shunt"}}, ` +
			`{"chain": {"family": "ip", "table": "shunt", "name": "nat_C"}}, ` +
			`{"set": {"family": "ip", "table": "shunt", "name": "s", "elem": [0`
		lookup = `,{"rule": {"family": "ip", "table": "shunt", "chain": "nat_C", "expr": [{"match": {"op": "==", ` +
			`"left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": "@s"}}, {"accept": null}]}}`
	)
	for name, text := range map[string]string{
		"chains": lines("*nat\n:OUTPUT ACCEPT [0:0]\n", ":C% - [0:0]\n", "") + lines("", "-A C% -j C%\n-A OUTPUT -j C%\n", "COMMIT\n"),
		"bases":  lines(`{"nftables": [{"table": {"family": "inet", "name": "t"}}`, base, "]}"),
		"sets":   lines(shunt, ",%", "]}}") + lines("", lookup, "]}"),
		"links":  lines("", "%: eth%: <UP>\n    inet 10.0.0.1/24 scope global\n", ""),
		"saves":  lines("", "*nat\nCOMMIT\n# %\n", ""),
		"routes": lines("0: from all fwmark 1 lookup 5\n", "10.0.0.0/8 dev eth% table %\n", ""),
		"rules":  lines("", "%: from all fwmark 1 lookup 5\n", "local default dev lo table 5\n"),
		"json":   lines("", "[{\"priority\": 1, \"src\": \"all\", \"table\": \"5\"}]\n", ""),
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := dump.Read("pod", []dump.File{{Name: "a.txt", Text: text}}); err != nil {
				t.Log(err)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("testdata/cases/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, input := range archive.Files {
			if input.Name != "want" {
				f.Add(string(input.Data))
			}
		}
	}
	f.Fuzz(func(_ *testing.T, text string) {
		pod, notes, err := dump.Read("pod", []dump.File{{Name: "a.txt", Text: text}})
		_ = describe(pod, notes, err)
	})
}
