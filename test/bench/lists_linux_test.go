package bench_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/bench"
	"github.com/shunt-dev/shunt/test/netns"
)

// listCosts are those that BenchmarkLists has measured.
var listCosts []bench.ListCost

// listBackends are those that lists are measured in, and listLengths how long they are.
var (
	listBackends = []string{"nft", "legacy", "nftables"}
	listLengths  = []int{10, 100, 1000, 10_000}
)

// connections is how many are opened in one measurement.
const connections = 200

// BenchmarkLists measures what a list of prefixes to leave alone costs: to install it, and a
// connection that none of them contains. The connection goes to the proxy's port, where this
// benchmark listens itself; what is measured is the thread that opens, accepts and resets it.
func BenchmarkLists(b *testing.B) {
	netns.Require(b, "iptables-nft", "iptables-legacy", "go")
	shuntInit := build(b, b.TempDir())
	for _, n := range listLengths {
		for _, backend := range listBackends {
			b.Run(fmt.Sprintf("%s/%d", backend, n), func(b *testing.B) {
				spec := interception.Default()
				spec.OutboundExcludeCIDRs = manyPrefixes(n)
				opts := interception.DefaultOptions()
				opts.Backend, opts.IPv6, opts.SkipVerify = interception.Backend(backend), interception.IPv6Off, true
				install := command(append([]string{shuntInit}, interception.Args(spec, opts)...))
				pod := newNetwork(b).pod
				if _, err := run(b.Context(), pod, []command{install}, nil); err != nil {
					b.Fatal(err)
				}
				listener := listenAt(b, pod, spec.OutboundPort)
				cost := bench.ListCost{Backend: backend, Prefixes: n}
				for b.Loop() {
					cost.Install = append(cost.Install, once(b, way{timed: []command{install}}))
					cost.Connection = append(cost.Connection, perConnection(b, pod, listener))
				}
				b.ReportMetric(0, "ns/op")
				listCosts = append(listCosts, cost)
			})
		}
	}
}

// manyPrefixes returns prefixes that do not touch each other, and do not contain the client.
func manyPrefixes(n int) interception.Prefixes {
	var words []string
	for i := range n {
		words = append(words, fmt.Sprintf("172.%d.%d.%d/30", 16+i/8192, i/32%256, i%32*8))
	}
	prefixes, err := interception.ParsePrefixes(strings.Join(words, ","))
	if err != nil || len(prefixes) != n {
		panic(fmt.Sprintf("%d prefixes of %d: %v", len(prefixes), n, err))
	}
	return prefixes
}

// listenAt listens in a namespace, with system calls: Go's sockets would wait in the scheduler.
func listenAt(b *testing.B, ns *netns.NS, port uint16) int {
	b.Helper()
	var fd int
	err := ns.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(port)}); err != nil {
			return err
		}
		return unix.Listen(fd, connections)
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// perConnection returns the CPU time that a connection takes.
func perConnection(b *testing.B, ns *netns.NS, listener int) (each time.Duration) {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	to := &unix.SockaddrInet4{Port: 80, Addr: netip.MustParseAddr(netns.OutsideIPv4.String()).As4()}
	err := ns.Do(func() error {
		start, err := threadTime()
		if err != nil {
			return err
		}
		for range connections {
			if err := connectOnce(listener, to); err != nil {
				return err
			}
		}
		end, err := threadTime()
		each = (end - start) / connections
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return each
}

// connectOnce opens a connection and resets it, so that its port is free at once.
func connectOnce(listener int, to unix.Sockaddr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	if err := unix.Connect(fd, to); err != nil {
		return err
	}
	accepted, _, err := unix.Accept(listener)
	if err != nil {
		return err
	}
	return unix.Close(accepted)
}
