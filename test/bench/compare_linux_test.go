package bench_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/bench"
	"github.com/shunt-dev/shunt/test/netns"
)

// compared are the proxies that BenchmarkProxy has measured.
var compared []bench.Proxied

// route is a way from the client to the app.
type route struct {
	name        string
	mode        interception.Mode // "" for no proxy
	noConntrack bool              // the variant of TPROXY whose state is in marks of sockets
	bare        bool              // without the sysctls that the injector gives to the pod
	source      string            // what the app sees as its client
}

var (
	direct   = route{name: "direct", source: "10.0.0.9"}
	explicit = route{name: bench.Explicit, mode: interception.ModeNone, source: "10.0.0.1"}
	routes   = []route{
		direct,
		explicit,
		{name: bench.Redirect, mode: interception.ModeRedirect, source: "127.0.0.6"},
		{name: bench.TProxy, mode: interception.ModeTProxy, source: "10.0.0.9"},
		{name: bench.NoConntrack, mode: interception.ModeTProxy, noConntrack: true, source: "10.0.0.9"},
		{name: "TPROXY, clients' port range", mode: interception.ModeTProxy, bare: true, source: "10.0.0.9"},
	}
)

// running is a route that can be measured.
type running struct {
	route
	small, large lab // of requests and connections, and of throughput
	samples      bench.Samples
}

// lab is a network whose app gives answers of one size.
type lab struct {
	network
	pid  int // of the proxy; 0 for none
	port int // that the client connects to
}

// roundsFor says how many of a benchmark's rounds make one of a comparison,
// which takes a quarter of a minute.
const roundsFor = 4

// BenchmarkProxy compares the ways through a proxy with the same proxy that is
// asked by its address, which is the limit, and with none. Each round takes
// every way and every kind of work in turn, so that what else the machine does
// meets all alike. Its metrics are how much of the explicit proxy's rate a way
// has.
func BenchmarkProxy(b *testing.B) {
	requireCommands(b, "haproxy", "wrk", "chrt", "setpriv", "iptables-nft", "go")
	if os.Getenv("ENVOY") == "" {
		b.Skip("this benchmark runs Envoy, and ENVOY names no binary; run it by `make bench`")
	}
	shuntInit, script := build(b, b.TempDir()), openFile(b, "report.lua", report).Name()
	for _, p := range proxies {
		b.Run(p.name, func(b *testing.B) {
			var ways []*running
			for _, r := range routes {
				ways = append(ways, r.run(b, p, shuntInit))
			}
			for i := 0; b.Loop(); i++ {
				if i%roundsFor == 0 {
					round(b, ways, script, i/roundsFor%2 == 1)
				}
			}
			record(b, p.name, ways)
		})
	}
}

// run makes a route ready.
func (r route) run(b *testing.B, p proxy, shuntInit string) *running {
	b.Helper()
	return &running{
		route: r, samples: bench.Samples{},
		small: r.lab(b, p, shuntInit, smallApp), large: r.lab(b, p, shuntInit, largeApp),
	}
}

// lab makes a network of the route, and holds that connections take it.
func (r route) lab(b *testing.B, p proxy, shuntInit string, a app) lab {
	b.Helper()
	l := lab{network: newNetwork(b), port: appPort}
	if r.mode != "" && !r.bare {
		l.setSysctls(b, r.mode)
	}
	l.serve(b, a)
	switch r.mode {
	case "":
	case interception.ModeNone:
		l.port = explicitPort
		l.pid = p.start(b, l.network, r)
	default:
		l.intercept(b, shuntInit, r)
		l.pid = p.start(b, l.network, r)
	}
	if source := l.source(b, l.port); source != r.source {
		b.Fatalf("%s, %s: the app sees %s, want %s", p.name, r.name, source, r.source)
	}
	return l
}

// round measures every kind of work on every way; the next one goes through
// the ways backwards.
func round(b *testing.B, ways []*running, script string, backwards bool) {
	b.Helper()
	for _, w := range bench.Works {
		for i := range ways {
			if backwards {
				i = len(ways) - 1 - i
			}
			way := ways[i]
			l := way.small
			if w == bench.Throughput {
				l = way.large
			}
			sample, err := l.measure(b, w, script)
			if err == nil && sample.Requests == 0 && !way.bare {
				err = errors.New("no request was answered")
			}
			if err == nil && sample.Tracked > 0 && way.noConntrack {
				err = fmt.Errorf("conntrack has %d entries", sample.Tracked)
			}
			if err != nil {
				b.Fatalf("%s, %s: %v", way.name, w, err)
			}
			way.samples[w] = append(way.samples[w], sample)
		}
	}
}

// loads are what wrk is told for each kind of work.
var loads = map[bench.Work][]string{
	bench.KeptOpen:   {"--connections=64"},
	bench.Throughput: {"--connections=4"},
	bench.New:        {"--connections=64", "--header=Connection: close"},
}

// report has wrk print what a program can read.
const report = `function done(summary)
	local e = summary.errors
	print(string.format("report %d %d %d %d", summary.requests, summary.bytes, summary.duration, e.connect + e.read + e.write + e.status))
end
`

// measure does one kind of work for a second. A request that fails, other than
// by taking long, is an error: a rate that leaves out failures is none. That
// all of them stall is no surprise in a pod without its sysctls alone.
func (l lab) measure(b *testing.B, w bench.Work, script string) (bench.Sample, error) {
	b.Helper()
	args := append([]string{"wrk", "--threads=1", "--duration=1s", "--script=" + script}, loads[w]...)
	args = append(args, fmt.Sprintf("http://%s:%d/", netns.PodIPv4, l.port))
	before, err := l.counters()
	if err != nil {
		return bench.Sample{}, err
	}
	cmd := process{cpu: otherCPU}.command(b.Context(), l.client, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return bench.Sample{}, fmt.Errorf("%w: %s", err, out)
	}
	after, err := l.counters()
	if err != nil {
		return bench.Sample{}, err
	}
	s := bench.Sample{CPU: after.cpu - before.cpu, Retransmits: after.retransmits - before.retransmits, Tracked: after.tracked}
	var micros, failed int64
	_, line, _ := strings.Cut(string(out), "report ")
	if _, err := fmt.Sscan(line, &s.Requests, &s.Bytes, &micros, &failed); err != nil {
		return s, fmt.Errorf("reading what wrk printed, %q: %w", out, err)
	}
	s.Took = time.Duration(micros) * time.Microsecond
	if failed > 0 {
		return s, fmt.Errorf("%d requests failed, and %d did not:\n%s", failed, s.Requests, out)
	}
	return s, nil
}

// counters are of the kernel.
type counters struct {
	cpu         time.Duration // that the proxy has used
	retransmits int64         // of SYN, in the pod and at the client
	tracked     int64         // entries of conntrack that the pod has
}

func (l lab) counters() (c counters, err error) {
	if l.pid != 0 {
		if c.cpu, err = cpuTime(l.pid); err != nil {
			return c, err
		}
	}
	if c.tracked, err = trackedIn(l.pod); err != nil {
		return c, err
	}
	for _, ns := range []*netns.NS{l.pod, l.client} {
		n, err := synRetransmits(ns)
		if err != nil {
			return c, err
		}
		c.retransmits += n
	}
	return c, nil
}

// cpuTime returns the CPU time of a process. The scheduler's account is in
// nanoseconds, where that of stat is in ticks of the clock.
func cpuTime(pid int) (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("the proxy, process %d, is gone", pid)
	}
	var sum time.Duration
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		used, _, _ := strings.Cut(string(text), " ")
		nanos, err := strconv.ParseInt(used, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("reading %s: %w", file, err)
		}
		sum += time.Duration(nanos)
	}
	return sum, nil
}

// trackedIn returns how many entries of conntrack a namespace has.
func trackedIn(ns *netns.NS) (count int64, err error) {
	err = ns.Do(func() error {
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err != nil {
			return err
		}
		count, err = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		return err
	})
	return count, err
}

// synRetransmits returns how many SYNs a namespace has sent again.
func synRetransmits(ns *netns.NS) (count int64, err error) {
	var text []byte
	err = ns.Do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/netstat")
		return err
	})
	if err != nil {
		return 0, err
	}
	// Two lines of a group: the names, and the numbers.
	var names []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		for i := range min(len(names), len(fields)) {
			if names[0] == fields[0] && names[i] == "TCPSynRetrans" {
				return strconv.ParseInt(fields[i], 10, 64)
			}
		}
		names = fields
	}
	return 0, fmt.Errorf("this kernel does not count TCPSynRetrans")
}

// record keeps what was measured for the tables, and reports the ratios.
func record(b *testing.B, name string, ways []*running) {
	b.Helper()
	p := bench.Proxied{Proxy: name}
	for _, way := range ways {
		measured := bench.Way{Name: way.name, Samples: way.samples}
		switch way.name {
		case direct.name:
			p.Direct = measured
		case explicit.name:
			p.Explicit = measured
		default:
			p.Ways = append(p.Ways, measured)
		}
	}
	for _, way := range p.Ways {
		for _, w := range bench.Works {
			b.ReportMetric(p.Ratio(way, w), strings.ReplaceAll(fmt.Sprintf("%s:%s-of-explicit", way.Name, w), " ", "_"))
		}
	}
	b.ReportMetric(0, "ns/op")
	compared = append(compared, p)
}
