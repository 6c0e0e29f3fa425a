package bench_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/bench"
	"github.com/shunt-dev/shunt/test/netns"
)

// results are those of the benchmarks that have run.
var results []bench.Result

// BenchmarkInstall installs rules in each way. Its metrics are medians of
// whole processes: cpu-ms/op, wall-ms/op and procs/op; and x-floor, how often
// the floor's CPU time fits into that of the way, both taken in turns. The
// namespaces are made outside the time that is measured.
func BenchmarkInstall(b *testing.B) {
	netns.Require(b, "iptables-nft", "iptables-legacy", "nft", "go")
	dir := b.TempDir()
	shuntInit := build(b, dir)
	count := newCounter(b, filepath.Join(dir, "shims"), shuntInit)
	for _, s := range settings() {
		ways := s.ways(b, shuntInit, dir)
		for _, w := range ways {
			b.Run(strings.ReplaceAll(s.String()+" "+w.id, " ", "/"), func(b *testing.B) {
				r := bench.Result{Setting: s.String(), Way: w.name, Processes: count.processes(b, s, w)}
				r.Rounds = measure(b, w, ways[0])
				results = append(results, r)
				b.ReportMetric(bench.Milliseconds(r.Rounds.CPU()), "cpu-ms/op")
				b.ReportMetric(bench.Milliseconds(r.Rounds.Wall()), "wall-ms/op")
				b.ReportMetric(float64(r.Processes), "procs/op")
				b.ReportMetric(r.Rounds.Ratio(), "x-floor")
				b.ReportMetric(0, "ns/op") // that is a mean, and of more than the processes
			})
		}
	}
}

// measure runs a way and the floor in turns, each time in a new namespace, so
// that what else the machine does meets both alike.
func measure(b *testing.B, w, floor way) bench.Rounds {
	b.Helper()
	var rounds bench.Rounds
	for b.Loop() {
		under, over := once(b, floor), once(b, w)
		rounds = append(rounds, bench.Round{CPU: over.CPU, Wall: over.Wall, Floor: under.CPU})
	}
	return rounds
}

// once runs a way in a namespace of its own, which is made and taken away
// while the benchmark's timer stands.
func once(b *testing.B, w way) bench.Round {
	b.Helper()
	b.StopTimer()
	defer b.StartTimer()
	ns := newNamespace(b)
	if _, err := run(b.Context(), ns, w.before, nil); err != nil {
		b.Fatal(err)
	}
	b.StartTimer()
	start := time.Now()
	cpu, err := run(b.Context(), ns, w.timed, nil)
	round := bench.Round{CPU: cpu, Wall: time.Since(start)}
	b.StopTimer()
	if err != nil {
		b.Fatal(err)
	}
	if err := ns.Close(); err != nil {
		b.Fatal(err)
	}
	return round
}

func newNamespace(b *testing.B) *netns.NS {
	b.Helper()
	ns, err := netns.New("bench")
	if err != nil {
		b.Fatal(err)
	}
	return ns
}

// run runs commands one after the other and returns the CPU time that they
// and the processes that they waited for took. A nil environment is this
// process's.
func run(ctx context.Context, ns *netns.NS, commands []command, env []string) (time.Duration, error) {
	var cpu time.Duration
	for _, c := range commands {
		cmd := ns.Command(ctx, c[0], c[1:]...)
		var errs bytes.Buffer
		cmd.Stderr, cmd.Env = &errs, env
		if err := cmd.Run(); err != nil {
			return 0, fmt.Errorf("%q: %w: %s", c, err, errs.String())
		}
		cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	return cpu, nil
}

// rulesIn returns the rules of a family that the setting's backend holds.
func rulesIn(ctx context.Context, ns *netns.NS, s setting, family ruleset.Family) (rs ruleset.RuleSet, err error) {
	if s.backend == interception.BackendNFTables {
		err = ns.Do(func() error {
			host, err := kernel.Open(ctx, interception.Options{Backend: s.backend, IPv6: interception.IPv6Off})
			if err != nil {
				return err
			}
			defer host.Close()
			rs, err = host.Rules(ctx, family)
			return err
		})
		return rs, err
	}
	text, err := ns.Command(ctx, s.program(family, "save")).CombinedOutput()
	if err != nil {
		return ruleset.RuleSet{}, fmt.Errorf("saving the %s rules: %w: %s", family, err, text)
	}
	return ruleset.Parse(family, string(text))
}
