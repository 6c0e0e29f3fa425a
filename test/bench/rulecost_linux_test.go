package bench_test

import (
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/test/bench"
	"github.com/shunt-dev/shunt/test/netns"
)

// ruleCosts are those that BenchmarkRule has measured.
var ruleCosts []bench.RuleCost

// backends are those that rules are measured in.
var backends = []string{"nft", "legacy"}

// copies is how many times a rule stands in a chain: enough for its cost to
// stand out from that of all else that befalls a packet.
const copies = 64

// exchanges is how many times a byte goes there and back in one measurement.
const exchanges = 2000

// kind is a kind of rule that our rule sets hold. A packet goes on behind it,
// so that it meets every copy.
type kind struct {
	chain string // of mangle
	rule  string
	met   string // what becomes of the packets, which are of an established connection over lo, unmarked, and of root
}

// What becomes of a packet at a rule.
const (
	passes  = "passes by"
	matches = "matches"
)

var kinds = []kind{
	{"OUTPUT", "-p udp", passes},
	{"OUTPUT", "-p tcp", matches},
	{"OUTPUT", "-s 127.0.0.6/32", passes},
	{"OUTPUT", "! -d 127.0.0.1/32", passes},
	{"OUTPUT", "-o eth0", passes},
	{"PREROUTING", "-i eth0", passes},
	{"PREROUTING", "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", passes},
	{"PREROUTING", "-p tcp -m tcp --dport 22", passes},
	{"PREROUTING", "-p tcp -m multiport --dports 15020:15021,15090", passes},
	{"OUTPUT", "-m mark --mark 0x539", passes},
	{"OUTPUT", "-m connmark --mark 0x539", passes},
	{"OUTPUT", "-m owner --uid-owner 1337", passes},
	{"OUTPUT", "-m owner --gid-owner 1337", passes},
	{"OUTPUT", "-m addrtype ! --src-type LOCAL", passes},
	{"OUTPUT", "-m conntrack --ctstate NEW", passes},
	{"OUTPUT", `-m comment --comment "why the rule is there"`, matches},
	{"OUTPUT", "-j OTHER", matches}, // and comes back
	{"OUTPUT", "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff", matches},
}

// Rules that make the kernel do what they need, for packets that never meet
// them: they are in the chain for packets that are forwarded. A chain that a
// packet passes has a rule.
const (
	tracking = "*filter\n-A FORWARD -m conntrack --ctstate INVALID\nCOMMIT\n"
	tracked  = "*raw\n-A OUTPUT -p udp\nCOMMIT\n"
	mangling = "*mangle\n:OTHER -\n-A PREROUTING -p udp\n-A OUTPUT -p udp\nCOMMIT\n"
	natting  = "*nat\n-A PREROUTING -p udp\n-A OUTPUT -p udp\nCOMMIT\n"
	letting  = "*raw\n-A OUTPUT -p udp\n-A OUTPUT -d 127.0.0.1/32 -j CT --notrack\nCOMMIT\n"
)

// price is a cost that is measured: what a packet takes longer with some rules
// than with fewer.
type price struct {
	bench.RuleCost
	fewer, more string // rules, as iptables-restore reads them
	parts       int    // of the difference, that the cost is one of
}

func prices() []price {
	all := []price{
		{bench.RuleCost{Rule: "conntrack", Met: "is tracked"}, "", tracking, 1},
		{bench.RuleCost{Rule: "nat", Met: "of a connection that nat leaves alone"}, tracking, tracking + natting, 1},
		{bench.RuleCost{Rule: "mangle", Met: "passes PREROUTING and OUTPUT, a rule in each"}, tracking, tracking + mangling, 1},
		{bench.RuleCost{Rule: "raw", Met: "passes OUTPUT, a rule in it"}, tracking, tracking + tracked, 1},
		{bench.RuleCost{Rule: "raw, CT --notrack", Met: "is not tracked"}, tracking, tracking + letting, 1},
	}
	floor := tracking + mangling
	for _, k := range kinds {
		more := strings.TrimSuffix(floor, "COMMIT\n") + strings.Repeat("-A "+k.chain+" "+k.rule+"\n", copies) + "COMMIT\n"
		all = append(all, price{bench.RuleCost{Rule: "`" + k.rule + "`", Met: k.met}, floor, more, copies})
	}
	return all
}

// BenchmarkRule measures the CPU time that a packet takes longer for each rule
// that it meets. A connection over lo sends a byte to and fro; what is
// measured is the thread that does so, which the kernel has carry the packets
// too.
func BenchmarkRule(b *testing.B) {
	netns.Require(b, "iptables-nft-restore", "iptables-legacy-restore")
	all := prices()
	for i := range all {
		all[i].Cost = map[string]float64{}
	}
	for _, backend := range backends {
		b.Run(backend, func(b *testing.B) {
			connections := map[string]*exchange{}
			for _, p := range all {
				for _, rules := range []string{p.fewer, p.more} {
					if connections[rules] == nil {
						connections[rules] = newExchange(b, backend, rules)
					}
				}
			}
			extra := make([][]float64, len(all))
			var bare []float64
			for b.Loop() {
				bare = append(bare, connections[""].perPacket(b))
				for i, p := range all {
					fewer := connections[p.fewer].perPacket(b)
					extra[i] = append(extra[i], (connections[p.more].perPacket(b)-fewer)/float64(p.parts))
				}
			}
			for i := range all {
				all[i].Cost[backend] = bench.Median(extra[i])
			}
			b.ReportMetric(bench.Median(bare), "bare-ns/packet")
			b.ReportMetric(0, "ns/op")
		})
	}
	for _, p := range all {
		if len(p.Cost) == len(backends) {
			ruleCosts = append(ruleCosts, p.RuleCost)
		}
	}
}

// exchange is a connection over lo, in a namespace with rules.
type exchange struct {
	a, b int // descriptors of its ends
}

func newExchange(b *testing.B, backend, rules string) *exchange {
	b.Helper()
	ns, err := netns.New("rules")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = ns.Close() })
	cmd := ns.Command(b.Context(), "iptables-"+backend+"-restore")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%s: %v: %s", rules, err, out)
	}
	e := &exchange{}
	if err := e.connect(ns); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _, _ = unix.Close(e.a), unix.Close(e.b) })
	return e
}

// connect makes the connection. Its sockets block, and are used with system
// calls: Go's own would wait in the scheduler.
func (e *exchange) connect(ns *netns.NS) error {
	return ns.Do(func() error {
		listener, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer listener.Close()
		at := netip.MustParseAddrPort(listener.Addr().String())
		if e.a, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.Connect(e.a, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}); err != nil {
			return err
		}
		accepted, err := listener.Accept()
		if err != nil {
			return err
		}
		defer accepted.Close()
		file, err := accepted.(*net.TCPConn).File()
		if err != nil {
			return err
		}
		defer file.Close()
		if e.b, err = unix.Dup(int(file.Fd())); err != nil {
			return err
		}
		for _, fd := range []int{e.a, e.b} {
			if err := unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_NODELAY, 1); err != nil {
				return err
			}
		}
		return unix.SetNonblock(e.b, false)
	})
}

// perPacket returns the CPU time in ns that a packet takes. Each byte is one
// packet, which acknowledges the one before.
func (e *exchange) perPacket(b *testing.B) float64 {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start, err := threadTime()
	if err != nil {
		b.Fatal(err)
	}
	for range exchanges {
		if err := pass(e.a, e.b); err != nil {
			b.Fatal(err)
		}
		if err := pass(e.b, e.a); err != nil {
			b.Fatal(err)
		}
	}
	end, err := threadTime()
	if err != nil {
		b.Fatal(err)
	}
	return float64(end-start) / (2 * exchanges)
}

func pass(from, to int) error {
	var one [1]byte
	if _, err := unix.Write(from, one[:]); err != nil {
		return err
	}
	_, err := unix.Read(to, one[:])
	return err
}

// threadTime is the CPU time of this thread.
func threadTime() (time.Duration, error) {
	var now unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now)
	return time.Duration(now.Nano()), err
}
