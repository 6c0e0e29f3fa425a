package bench_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/test/bench"
)

// Documents that tables are put into.
const (
	performance = "performance.md"
	benchmarks  = "benchmarks.md"
)

// table is a table that benchmarks fill, and where it goes.
type table struct {
	document, name string
	text           func() string
	has, want      int      // rows that were measured, and all
	programs       []string // that were measured, beside iptables
}

func tables() []table {
	start := podStart(results)
	proxied := []string{os.Getenv("ENVOY"), "haproxy", "wrk"}
	return []table{
		{performance, "proxies", func() string { return bench.ProxiedTable(compared) + "\n" + bench.BarsTable(compared) },
			len(compared), len(proxies), proxied},
		{performance, "pod start", func() string { return bench.Table(start) }, len(start), 8, nil},
		{benchmarks, "install", func() string { return bench.Table(results) }, len(results), allWays(), nil},
		{benchmarks, "lists", func() string { return bench.ListTable(listBackends, listCosts) },
			len(listCosts), len(listBackends) * len(listLengths), nil},
		{benchmarks, "rule costs", func() string { return bench.RuleCostTable(backends, ruleCosts) }, len(ruleCosts), len(prices()), nil},
	}
}

// podStart returns the results for what a pod gets by default: iptables-nft,
// both families, verified.
func podStart(results []bench.Result) []bench.Result {
	return slices.DeleteFunc(slices.Clone(results), func(r bench.Result) bool {
		return !strings.HasPrefix(r.Setting, "nft ") || !strings.HasSuffix(r.Setting, " dual") || strings.Contains(r.Way, "--skip-verify")
	})
}

// TestMain prints what was measured after the benchmarks, and puts what is
// whole into the documents of the folder that SHUNT_BENCH_DOCS names.
func TestMain(m *testing.M) {
	code := m.Run()
	if err := publish(os.Getenv("SHUNT_BENCH_DOCS")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// publish prints what was measured, and puts it into the documents of a folder.
// A table that lacks rows, because a pattern chose some benchmarks only, is left
// out there.
func publish(folder string) error {
	for _, t := range tables() {
		if t.has == 0 {
			continue
		}
		section := bench.Section{Name: t.name, Text: "Measured on " + machine(t.programs) + ".\n\n" + t.text()}
		fmt.Printf("\n%s: %s\n", section.Name, section.Text)
		if folder == "" || t.has != t.want {
			continue
		}
		if err := fill(filepath.Join(folder, t.document), section); err != nil {
			return err
		}
	}
	return nil
}

func fill(document string, section bench.Section) error {
	text, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	filled, err := section.Fill(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", document, err)
	}
	return os.WriteFile(document, []byte(filled), 0o644)
}

// TestTablesHaveAPlace holds that `make bench` can put each table into its
// document, and that the costs of a pod's start are those of all
// installations.
func TestTablesHaveAPlace(t *testing.T) {
	documented := map[string]string{}
	for _, table := range tables() {
		text, err := os.ReadFile(filepath.Join(docs, table.document))
		if err != nil {
			t.Fatal(err)
		}
		if documented[table.name], err = (bench.Section{Name: table.name}).In(string(text)); err != nil {
			t.Errorf("%s: %v", table.document, err)
		}
	}
	rows := 0
	for line := range strings.Lines(documented["pod start"]) {
		if strings.HasPrefix(line, "| nft ") {
			rows++
			if !strings.Contains(documented["install"], line) {
				t.Errorf("%s has a row that %s has not: %s", performance, benchmarks, line)
			}
		}
	}
	if want := tables()[1].want; rows != want {
		t.Errorf("%s has %d rows of a pod's start, want %d", performance, rows, want)
	}
}

// machine describes what the figures were measured on.
func machine(programs []string) string {
	parts := []string{fmt.Sprintf("%d CPUs (%s)", runtime.NumCPU(), find("/proc/cpuinfo", `model name\s*: (.*)`))}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		parts = append(parts, "Linux "+first(`\d+\.\d+`, unix.ByteSliceToString(uts.Release[:])))
	}
	for _, program := range append([]string{"iptables-nft"}, programs...) {
		parts = append(parts, version(program))
	}
	return strings.Join(append(parts, runtime.Version()+" "+runtime.GOARCH), ", ")
}

// version names a program and its version, as far as it says it.
func version(program string) string {
	name := program[strings.LastIndex(program, "/")+1:]
	text, err := exec.Command(program, "--version").CombinedOutput()
	if err != nil {
		text, _ = exec.Command(program, "-v").CombinedOutput() // some end with an error, having said it
	}
	return name + " " + first(`\d+\.\d+\.\d+`, string(text))
}

func find(file, pattern string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	return first(pattern, string(text))
}

// first returns the first match of a pattern, or of the group in it.
func first(pattern, text string) string {
	match := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if match == nil {
		return "of unknown version"
	}
	return match[len(match)-1]
}
