package kernel

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// probePatience is how long a probe waits for what happens at once if the rules are
// right.
const probePatience = time.Second

// probePort is where probes to an address outside go.
const probePort = 443

// maxLost is the number of findings after which no more probes are sent. Each lost
// probe takes its patience twice, and a few are enough to tell.
const maxLost = 3

// ProbeResult is what the probes have shown.
type ProbeResult struct {
	// Findings are the probes that did not end where they should.
	Findings []string
	// Unproved is what no probe could show.
	Unproved []string
}

// Probe sends real connections through the namespace and reports those that do not
// end where Trace says. They go over loopback, to the pod's own address, out by
// each interface, in by a link, and to port 53. If the proxy listens already, a
// probe has reached it when its connection stands: there is nobody else to answer.
// Probes that rules of others drop, as a firewall does, are not sent; what the
// namespace holds tells which.
//
// Nothing leaves the namespace: see guardProbes.
func (h *Host) Probe(ctx context.Context, spec interception.Spec, want, holds []ruleset.RuleSet) (result ProbeResult, err error) {
	sink, err := h.openSink(h.families)
	defer func() { err = errors.Join(err, h.closeSink()) }()
	if err != nil {
		return ProbeResult{}, err
	}
	for _, wanted := range want {
		if !slices.Contains(sink.families, wanted.Family) {
			result.Unproved = append(result.Unproved, wanted.Family.String()+" could not be probed here")
			continue
		}
		own := probeNets[wanted.Family].own.Addr()
		if err := h.awaitLocalRoute(netip.PrefixFrom(own, own.BitLen()), true); err != nil {
			return ProbeResult{}, fmt.Errorf("address %s of %s: %w", own, probeLink, err)
		}
		have, err := heldOrRead(ctx, h, wanted.Family, holds)
		if err != nil {
			return ProbeResult{}, fmt.Errorf("reading the %s rules: %w", wanted.Family, err)
		}
		(&probing{spec: spec, sink: sink, want: wanted, have: have, ProbeResult: &result}).run(ctx)
	}
	return result, nil
}

// probing holds what the probes of one family need.
type probing struct {
	*ProbeResult
	spec       interception.Spec
	sink       sink
	want, have ruleset.RuleSet
}

func (ps *probing) run(ctx context.Context) {
	blocked := false
	for _, probe := range probes(ps.spec, ps.want.Family, ps.sink) {
		if blocked && probe.Direction == ruleset.In {
			continue
		}
		err := probe.run(ctx, ps.want, ps.have)
		if isLost(err) {
			// Once more: a link that has just come up, or a busy node, may lose a packet.
			err = probe.run(ctx, ps.want, ps.have)
		}
		if probe.Direction == ruleset.In && (errors.Is(err, errKeptOut) || err != nil && ps.blockedByOthers(ctx, isLost(err))) {
			blocked = true
			ps.Unproved = append(ps.Unproved, "no probe could come in over "+ps.want.Family.String()+" here")
			continue
		}
		if err == nil || errors.Is(err, errKeptOut) {
			continue
		}
		ps.Findings = append(ps.Findings, fmt.Sprintf("%s: probe %s: %v", ps.want.Family, probe, err))
		if len(ps.Findings) == maxLost {
			ps.Findings = append(ps.Findings, "no more probes were sent")
			return
		}
	}
}

// blockedByOthers reports whether connections that our rules leave alone do not
// arrive either. Then others drop them, and the failed probe shows nothing. It
// tries a datagram and, if the probe was lost rather than refused, the excluded
// ports.
func (ps *probing) blockedByOthers(ctx context.Context, lost bool) bool {
	controls := []probe{inboundProbe(ps.spec, ps.want.Family, "udp", 0)}
	for _, r := range ps.spec.InboundExcludePorts {
		if lost {
			controls = append(controls, inboundProbe(ps.spec, ps.want.Family, "tcp", r.First))
		}
	}
	for _, p := range controls {
		target, err := listen(ctx, p.Protocol, netip.AddrPortFrom(p.Dst, p.DstPort))
		if err != nil {
			continue // somebody has the port
		}
		p.DstPort = target.port
		leftAlone := ruleset.Trace(ps.want, p.host(), p.Packet).Outcome.Fate == ruleset.Direct
		err = p.reaches(ctx, target)
		_ = target.Close()
		if leftAlone && (isLost(err) || err != nil && p.Protocol == "udp") {
			return true
		}
	}
	return false
}

func isLost(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// errKeptOut is the error of a probe that was not sent.
var errKeptOut = errors.New("rules of others drop it")

// probe is one packet to send, which stands for a connection.
type probe struct {
	ruleset.Packet
	uplink string     // by which it leaves, if it does
	via    netip.Addr // where it is sent, if not to its destination
	// visitorMark is the mark of the socket that plays another host; 0 for none.
	visitorMark uint32
}

// probes returns the packets to send. They have the uid and gid of this process.
func probes(spec interception.Spec, family ruleset.Family, sink sink) []probe {
	addrs := probeNets[family]
	own := addrs.own.Addr()
	loopback, outside := netip.IPv6Loopback(), own.Prev()
	if family == ruleset.IPv4 {
		loopback = netip.MustParseAddr("127.0.0.1")
	}
	out := func(protocol, uplink string, dst netip.Addr, port uint16, mark uint32) probe {
		return probe{Packet: ruleset.Packet{
			Direction: ruleset.Out, Family: family, Protocol: protocol, Dst: dst, DstPort: port, Mark: mark,
			UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), State: ruleset.New,
		}, uplink: uplink}
	}
	all := []probe{out("tcp", probeLink, loopback, 0, 0), out("tcp", probeLink, own, 0, 0)}
	if spec.System == interception.SystemTProxy {
		self := spec.Mark + 1
		if spec.NoConntrack {
			self = spec.Marks().Proxy
		}
		all = append(all, out("tcp", probeLink, own, 0, self))
	}
	if sink.guarded {
		all = append(all, inboundProbe(spec, family, "tcp", 0))
		for _, r := range first(spec.InboundPorts.Ranges) {
			all = append(all, inboundProbe(spec, family, "tcp", r.First))
		}
		for _, r := range first(spec.UDPPorts) {
			all = append(all, inboundProbe(spec, family, "udp", r.First))
		}
	}
	ways := maps.Clone(sink.beyond[family])
	if len(ways) == 0 {
		ways = map[string]netip.Addr{probeLink: outside}
	}
	for _, uplink := range slices.Sorted(maps.Keys(ways)) {
		to := ways[uplink]
		all = append(all, out("tcp", uplink, to, probePort, 0), out("tcp", uplink, to, 53, 0), out("udp", uplink, to, 53, 0))
		for _, r := range first(spec.OutboundPorts) {
			all = append(all, out("tcp", uplink, to, r.First, 0))
		}
	}
	return all
}

// maxProbed is how many elements of a list are probed. All are elements of sets, of
// rules that have been read back; 30,000 probes took 20 s.
const maxProbed = 64

func first(ranges interception.PortRanges) interception.PortRanges {
	return ranges[:min(len(ranges), maxProbed)]
}

// inboundProbe returns a probe that comes in by probeLink. Without conntrack its socket
// has the mark of the proxy's own, so that what it sends is not taken for the app's.
func inboundProbe(spec interception.Spec, family ruleset.Family, protocol string, port uint16) probe {
	addrs, mark := probeNets[family], uint32(0)
	if spec.NoConntrack {
		mark = spec.Marks().Proxy
	}
	return probe{visitorMark: mark, Packet: ruleset.Packet{
		Direction: ruleset.In, Family: family, Protocol: protocol, Src: addrs.visitor, Dst: addrs.own.Addr(), DstPort: port,
		Interface: probeLink, State: ruleset.New,
	}, uplink: probeLink, via: addrs.alias}
}

// host returns the pod as the probe meets it.
func (p probe) host() ruleset.Host {
	return ruleset.Host{Addresses: []netip.Addr{probeNets[p.Family].own.Addr()}, Uplink: p.uplink}
}

// String returns the packet, and the interface by which it leaves.
func (p probe) String() string {
	if p.Direction == ruleset.In {
		return p.Packet.String()
	}
	return p.Packet.String() + " by " + p.uplink
}

// run sends the probe if the rules take it to a listener that can be opened here. A
// packet that leaves cannot be followed.
func (p *probe) run(ctx context.Context, want, have ruleset.RuleSet) error {
	var target *listener
	if p.DstPort == 0 {
		var err error
		if target, err = listen(ctx, p.Protocol, netip.AddrPortFrom(p.Dst, 0)); err != nil {
			return err
		}
		defer target.Close()
		p.DstPort = target.port
	}
	if fate := ruleset.Trace(have, p.host(), p.Packet).Outcome.Fate; fate == ruleset.Dropped || fate == ruleset.Rejected {
		return errKeptOut
	}
	switch outcome := ruleset.Trace(want, p.host(), p.Packet).Outcome; {
	case outcome.Fate == ruleset.Direct && target != nil:
		return p.reaches(ctx, target)
	case outcome.Fate == ruleset.Redirected || outcome.Fate == ruleset.TProxied:
		wildcard := netip.IPv6Unspecified()
		if p.Family == ruleset.IPv4 {
			wildcard = netip.IPv4Unspecified()
		}
		proxy, err := listen(ctx, p.Protocol, netip.AddrPortFrom(wildcard, outcome.Port))
		if errors.Is(err, unix.EADDRINUSE) {
			return p.connects(ctx)
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
	// Addresses do not identify it: if two connections from one port are redirected
	// to one listener, NAT gives one of them another source port.
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

// connects opens the probe's connection, which only a listener of this host can
// accept. A datagram shows nothing: nobody has to answer it.
func (p *probe) connects(ctx context.Context) error {
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
	dialer := net.Dialer{Timeout: probePatience, Control: onSocket(p.prepare)}
	to := p.Dst
	if p.Direction == ruleset.In {
		to = p.via
		if p.Protocol == "tcp" {
			dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.Src, 0))
		} else {
			dialer.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.Src, 0))
		}
	}
	conn, err := dialer.DialContext(ctx, p.network(), netip.AddrPortFrom(to, p.DstPort).String())
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // a reset frees the port at once
	}
	return conn, err
}

// prepare sets the priority that the guard looks for. An inbound probe's socket may
// also use the visitor's address, which is not the pod's.
func (p *probe) prepare(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, probePriority); err != nil {
		return err
	}
	if mark := p.Mark | p.visitorMark; mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
			return err
		}
	}
	if p.Direction == ruleset.In {
		return setTransparent(fd, p.Family == ruleset.IPv6)
	}
	return nil
}

func setTransparent(fd int, v6 bool) error {
	if v6 {
		return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
	}
	return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
}

func (p *probe) network() string { return p.Protocol + fmt.Sprint(int(p.Family)) }
