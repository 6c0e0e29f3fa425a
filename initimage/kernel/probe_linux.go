package kernel

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// probePatience is how long a probe waits for what happens at once where the
// rules are right.
const probePatience = time.Second

// probePort is where probes to an address outside go.
const probePort = 443

// Probe sends real connections through the namespace and returns those that do
// not end where Trace says that the wanted rules take them: over loopback, to
// the pod's own address, out, and DNS queries; and in SystemTProxy in, by the
// way that a proxy's call to its own pod takes. Where the proxy listens
// already, that a connection to nowhere stands shows that it took it.
//
// Nothing leaves the namespace: the address outside is behind a link of its
// own, made for the time of the probes. The families that could be probed are
// returned too.
func (h *Host) Probe(ctx context.Context, spec interception.Spec, want []ruleset.RuleSet) (
	findings []string, probed []ruleset.Family, err error,
) {
	if probed, err = h.openSink(h.families); err != nil {
		return nil, nil, errors.Join(err, h.closeSink())
	}
	defer func() { err = errors.Join(err, h.closeSink()) }()
	for _, rs := range want {
		if !slices.Contains(probed, rs.Family) {
			continue
		}
		own := probeAddress(rs.Family)
		if err := h.awaitLocalRoute(netip.PrefixFrom(own, own.BitLen()), true); err != nil {
			return nil, nil, fmt.Errorf("address %s of %s: %w", own, probeLink, err)
		}
		for _, p := range probes(spec, rs.Family) {
			if err := p.run(ctx, rs); err != nil {
				findings = append(findings, fmt.Sprintf("%s: probe %s: %v", rs.Family, p.Packet, err))
			}
		}
	}
	return findings, probed, nil
}

func probeAddress(family ruleset.Family) netip.Addr {
	for _, prefix := range probeAddresses {
		if family.Of(prefix.Addr()) {
			return prefix.Addr()
		}
	}
	return netip.Addr{}
}

// probe is one packet that is sent, and stands for a connection.
type probe struct{ ruleset.Packet }

// probes are the packets to send. Their ids are those of this process.
func probes(spec interception.Spec, family ruleset.Family) []probe {
	own := probeAddress(family)
	loopback, outside := netip.IPv6Loopback(), own.Prev()
	if family == ruleset.IPv4 {
		loopback = netip.MustParseAddr("127.0.0.1")
	}
	out := func(protocol string, dst netip.Addr, port uint16, mark uint32) probe {
		return probe{ruleset.Packet{
			Direction: ruleset.Out, Family: family, Protocol: protocol, Dst: dst, DstPort: port, Mark: mark,
			UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), State: ruleset.New,
		}}
	}
	all := []probe{
		out("tcp", loopback, 0, 0), out("tcp", own, 0, 0),
		out("tcp", outside, probePort, 0), out("tcp", outside, 53, 0), out("udp", outside, 53, 0),
	}
	for _, r := range spec.OutboundPorts {
		all = append(all, out("tcp", outside, r.First, 0))
	}
	if spec.System == interception.SystemTProxy {
		all = append(all, out("tcp", own, 0, spec.Mark+1))
	}
	return all
}

// run sends the probe where the rules take it to a listener that can be had
// here; a packet that is to leave cannot be followed.
func (p *probe) run(ctx context.Context, rs ruleset.RuleSet) error {
	var target *listener
	if p.DstPort == 0 {
		var err error
		if target, err = listen(ctx, p.Protocol, netip.AddrPortFrom(p.Dst, 0)); err != nil {
			return err
		}
		defer target.Close()
		p.DstPort = target.port
	}
	host := ruleset.Host{Addresses: []netip.Addr{probeAddress(p.Family)}, Uplink: probeLink}
	switch outcome := ruleset.Trace(rs, host, p.Packet).Outcome; {
	case outcome.Fate == ruleset.Direct && target != nil:
		return p.reaches(ctx, target)
	case outcome.Fate == ruleset.Redirected || outcome.Fate == ruleset.TProxied:
		wildcard := netip.IPv6Unspecified()
		if p.Family == ruleset.IPv4 {
			wildcard = netip.IPv4Unspecified()
		}
		proxy, err := listen(ctx, p.Protocol, netip.AddrPortFrom(wildcard, outcome.Port))
		if errors.Is(err, unix.EADDRINUSE) {
			return p.stands(ctx)
		}
		if err != nil {
			return err
		}
		defer proxy.Close()
		return p.reaches(ctx, proxy)
	}
	return nil
}

// reaches sends the probe and waits for it at a listener.
func (p *probe) reaches(ctx context.Context, l *listener) error {
	conn, err := p.dial(ctx)
	if err != nil {
		return fmt.Errorf("did not reach port %d: %w", l.port, err)
	}
	defer conn.Close()
	// Addresses would not do: two connections from one port to different
	// destinations are redirected to one, and NAT tells them apart by
	// another source port.
	sent := []byte(rand.Text())
	if _, err := conn.Write(sent); err != nil {
		return fmt.Errorf("sending to port %d: %w", l.port, err)
	}
	got, err := l.await(len(sent))
	if err != nil {
		return fmt.Errorf("did not reach port %d: %w", l.port, err)
	}
	if !bytes.Equal(got, sent) {
		return fmt.Errorf("port %d was reached by somebody else", l.port)
	}
	return nil
}

// stands opens the probe's connection, which can only be to a listener of this
// host. A datagram shows nothing: nobody has to answer it.
func (p *probe) stands(ctx context.Context) error {
	if p.Protocol != "tcp" {
		return nil
	}
	conn, err := p.dial(ctx)
	if err != nil {
		return fmt.Errorf("the proxy did not take it: %w", err)
	}
	return conn.Close()
}

func (p *probe) dial(ctx context.Context) (net.Conn, error) {
	dialer := net.Dialer{Timeout: probePatience, Control: onSocket(func(fd int) error {
		if p.Mark == 0 {
			return nil
		}
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(p.Mark))
	})}
	conn, err := dialer.DialContext(ctx, p.network(), netip.AddrPortFrom(p.Dst, p.DstPort).String())
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // the pod is not to be short of a port for it
	}
	return conn, err
}

func (p *probe) network() string { return p.Protocol + fmt.Sprint(int(p.Family)) }

// listener is where a probe is awaited.
type listener struct {
	io.Closer
	port  uint16
	await func(size int) (text []byte, err error) // what the next to come says
}

// listen waits for connections or datagrams at an address. The socket is
// transparent, so that TPROXY may give it those of other addresses.
func listen(ctx context.Context, protocol string, at netip.AddrPort) (*listener, error) {
	network, v6 := protocol+"4", at.Addr().Is6()
	if v6 {
		network = protocol + "6"
	}
	config := net.ListenConfig{Control: onSocket(func(fd int) error {
		if v6 {
			return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
		}
		return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
	})}
	config.SetMultipathTCP(false)
	if protocol == "udp" {
		packets, err := config.ListenPacket(ctx, network, at.String())
		if err != nil {
			return nil, err
		}
		return &listener{packets, portOf(packets.LocalAddr()), func(size int) ([]byte, error) {
			_ = packets.SetReadDeadline(time.Now().Add(probePatience))
			text := make([]byte, size)
			n, _, err := packets.ReadFrom(text)
			return text[:n], err
		}}, nil
	}
	l, err := config.Listen(ctx, network, at.String())
	if err != nil {
		return nil, err
	}
	return &listener{l, portOf(l.Addr()), func(size int) ([]byte, error) {
		deadline := time.Now().Add(probePatience)
		_ = l.(*net.TCPListener).SetDeadline(deadline)
		conn, err := l.Accept()
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		_ = conn.SetDeadline(deadline)
		text := make([]byte, size)
		n, err := io.ReadFull(conn, text)
		return text[:n], err
	}}, nil
}

func portOf(addr net.Addr) uint16 {
	parsed, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return 0
	}
	return parsed.Port()
}

// onSocket is a Control function that sets an option before a socket is bound
// or connected.
func onSocket(set func(fd int) error) func(string, string, syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		var failed error
		if err := raw.Control(func(fd uintptr) { failed = set(int(fd)) }); err != nil {
			return err
		}
		return os.NewSyscallError("setsockopt", failed)
	}
}
