package bench_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/test/bench"
)

// TestMain prints what was measured after the benchmarks, and puts what is
// whole into the document that SHUNT_BENCH_DOC names.
func TestMain(m *testing.M) {
	code := m.Run()
	if err := publish(os.Getenv("SHUNT_BENCH_DOC")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// publish prints what was measured, and puts it into a document. A table that
// lacks rows, because a pattern chose some benchmarks only, is left out there.
func publish(document string) error {
	var whole []bench.Section
	for _, table := range []struct {
		name      string
		text      func() string
		has, want int // rows
		programs  []string
	}{
		{"install", func() string { return bench.Table(results) }, len(results), len(settings()) * waysOfEach, nil},
		{"proxies", func() string { return bench.ProxiedTable(compared) + "\n" + bench.BarsTable(compared) },
			len(compared), len(proxies), []string{os.Getenv("ENVOY"), "haproxy", "wrk"}},
		{"rule costs", func() string { return bench.RuleCostTable(backends, ruleCosts) }, len(ruleCosts), len(prices()), nil},
	} {
		if table.has == 0 {
			continue
		}
		section := bench.Section{Name: table.name, Text: "Measured on " + machine(table.programs) + ".\n\n" + table.text()}
		fmt.Printf("\n%s: %s\n", section.Name, section.Text)
		if table.has == table.want {
			whole = append(whole, section)
		}
	}
	if document == "" || len(whole) == 0 {
		return nil
	}
	return fill(document, whole)
}

func fill(document string, sections []bench.Section) error {
	text, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	filled := string(text)
	for _, s := range sections {
		if filled, err = s.Fill(filled); err != nil {
			return fmt.Errorf("%s: %w", document, err)
		}
	}
	return os.WriteFile(document, []byte(filled), 0o644)
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
