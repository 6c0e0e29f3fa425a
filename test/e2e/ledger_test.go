//go:build linux

package e2e_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ledger has the connections of applications (app tell) from two places: their server, which is the
// test itself, on the node's addresses; and the node's ends of the pods' veths.
//
// A connection is direct if its server sees the address and port that the application's own socket
// has. An intercepted one comes from the proxy's socket, which cannot have the same: the
// application's is open meanwhile, with the same server as its other end.
type ledger struct {
	addresses []string // of the server, for app tell
	veths     int      // a packet socket
	bridge    int      // the interface that hands on what comes from the veths

	mu    sync.Mutex
	calls []toldCall
}

// toldCall is a connection that the server has accepted.
type toldCall struct {
	pod  string
	own  netip.AddrPort // as the application has told
	seen netip.AddrPort // as the server sees it
}

func (c toldCall) direct() bool { return c.own == c.seen }

// newLedger starts to listen. It ends with the spec.
func newLedger(ctx context.Context) *ledger {
	GinkgoHelper()
	node, l := &corev1.Node{}, &ledger{}
	Expect(api.Get(ctx, client.ObjectKey{Name: "shunt-node"}, node)).To(Succeed())
	port := "0"
	for _, address := range node.Status.Addresses {
		if address.Type != corev1.NodeInternalIP {
			continue
		}
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(address.Address, port))
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(listener.Close)
		l.addresses = append(l.addresses, listener.Addr().String())
		_, port, err = net.SplitHostPort(listener.Addr().String())
		Expect(err).NotTo(HaveOccurred())
		go l.serve(listener)
	}
	bridge, err := net.InterfaceByName("cni0")
	Expect(err).NotTo(HaveOccurred())
	l.bridge = bridge.Index
	l.veths, err = captureSYNs(netip.MustParseAddrPort(l.addresses[0]).Port())
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(unix.Close, l.veths)
	return l
}

func (l *ledger) serve(listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return // closed
		}
		go func() {
			defer connection.Close()
			line, err := bufio.NewReader(connection).ReadString('\n')
			pod, address, _ := strings.Cut(strings.TrimSpace(line), " ")
			own, wrong := netip.ParseAddrPort(address)
			if err = errors.Join(err, wrong); err != nil {
				fmt.Fprintln(GinkgoWriter, "not of app tell:", connection.RemoteAddr(), err)
				return
			}
			l.mu.Lock()
			l.calls = append(l.calls, toldCall{pod, own, netip.MustParseAddrPort(connection.RemoteAddr().String())})
			l.mu.Unlock()
			fmt.Fprintln(connection, "heard")
		}()
	}
}

// heard returns the calls until now.
func (l *ledger) heard() []toldCall {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.calls)
}

// awaits waits until the server has heard a number of calls.
func (l *ledger) awaits(ctx context.Context, number int) {
	GinkgoHelper()
	Eventually(ctx, func() int { return len(l.heard()) }).
		WithTimeout(240 * time.Second).WithPolling(20 * time.Millisecond).Should(BeNumerically(">=", number))
}

// tells makes the application of a running pod call, and reports whether it did so directly.
func (l *ledger) tells(ctx context.Context, namespace, pod string) bool {
	GinkgoHelper()
	before := len(l.heard())
	kubectl(ctx, "-n", namespace, "exec", pod, "-c", "app", "--", "/app", "tell", l.addresses[0])
	calls := l.heard()[before:]
	Expect(calls).To(HaveLen(1))
	return calls[0].direct()
}

// captureSYNs returns a packet socket that receives what opens TCP connections to a port, from all
// interfaces of this network namespace.
func captureSYNs(port uint16) (int, error) {
	const (
		version, version6       = 0xf0, 0x60
		tcp, header6            = unix.IPPROTO_TCP, 40
		toPort, flags           = 2, 13
		synAndAck, syn, toBegin = 0x12, 0x02, 128
	)
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: version},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: version6, SkipTrue: 4},
		bpf.LoadAbsolute{Off: 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: tcp, SkipFalse: 11},
		bpf.LoadMemShift{Off: 0},
		bpf.Jump{Skip: 3},
		bpf.LoadAbsolute{Off: 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: tcp, SkipFalse: 7},
		bpf.LoadConstant{Dst: bpf.RegX, Val: header6},
		bpf.LoadIndirect{Off: toPort, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(port), SkipFalse: 4},
		bpf.LoadIndirect{Off: flags, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: synAndAck},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: syn, SkipFalse: 1},
		bpf.RetConstant{Val: toBegin},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return 0, err
	}
	program := make([]unix.SockFilter, len(filter))
	for i, raw := range filter {
		program[i] = unix.SockFilter{Code: raw.Op, Jt: raw.Jt, Jf: raw.Jf, K: raw.K}
	}
	// It receives nothing before it is bound, when the filter is there.
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	const buffered = 32 << 20
	err = errors.Join(
		unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffered),
		unix.SetsockoptSockFprog(socket, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}), //nolint:gosec // seventeen
		unix.Bind(socket, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})}),
	)
	return socket, err
}

// opened returns the sources of all connections to the server that have come out of a pod's veth
// since it was asked last.
func (l *ledger) opened() map[netip.AddrPort]bool {
	GinkgoHelper()
	sources, packet := map[netip.AddrPort]bool{}, make([]byte, 256)
	for {
		length, from, err := unix.Recvfrom(l.veths, packet, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		Expect(err).NotTo(HaveOccurred())
		link, ip := from.(*unix.SockaddrLinklayer), packet[:length]
		if link.Pkttype == unix.PACKET_OUTGOING || link.Ifindex == l.bridge {
			continue
		}
		source, header := ip[12:16], int(ip[0]&0xf)*4
		if ip[0]>>4 == 6 {
			source, header = ip[8:24], 40
		}
		address, _ := netip.AddrFromSlice(source)
		sources[netip.AddrPortFrom(address, binary.BigEndian.Uint16(ip[header:]))] = true
	}
	lost, err := unix.GetsockoptTpacketStats(l.veths, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	Expect(err).NotTo(HaveOccurred())
	Expect(lost.Drops).To(BeZero(), "packets that were not seen")
	return sources
}

// expectDirect checks that the connections of some pods only were direct, by the server's count and by the
// veths', and that nothing else came out of the veths.
func (l *ledger) expectDirect(pods ...string) {
	GinkgoHelper()
	opened, calls := l.opened(), l.heard()
	atServer, atVeths := []string{}, []string{}
	for _, call := range calls {
		Expect(call.own.Addr()).To(Equal(call.seen.Addr()), call.pod)
		Expect(opened).To(HaveKey(call.seen), "%s: the server has a connection that no veth has", call.pod)
		if call.direct() {
			atServer = append(atServer, call.pod)
		}
		if opened[call.own] {
			atVeths = append(atVeths, call.pod)
		}
	}
	wanted := []string{}
	for _, pod := range pods {
		wanted = append(wanted, slices.Repeat([]string{pod}, len(l.addresses))...)
	}
	Expect(atServer).To(ConsistOf(wanted), "direct, by the server's count")
	Expect(atVeths).To(ConsistOf(wanted), "direct, by the veths' count")
	for _, call := range calls {
		delete(opened, call.seen)
	}
	Expect(opened).To(BeEmpty(), "connections of which the server knows nothing")
}
