package kernel

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Witness checks what a process can see without a privilege, in the network
// namespace of this thread. It compares the addresses, policy rules and routes that
// the rules need, and sends connections of its own to addresses outside, which have
// to arrive at the proxy's ports here instead. Nobody can come in from outside, or
// read the rules, without one: Host.Probe does, and Verify.
//
// The user and group of this process must be intercepted, and so be others than the
// proxy's. Nothing gets farther than the node if the rules are not there: every
// packet may make one hop.
func Witness(ctx context.Context, spec interception.Spec, families []ruleset.Family) (ProbeResult, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return ProbeResult{}, fmt.Errorf("%w: opening netlink: %w", ErrPreflight, err)
	}
	defer handle.Close()
	host := &Host{netlink: handle, sysctls: sysctlFolder}
	var result ProbeResult
	for _, family := range families {
		want := ruleset.Build(spec, family)
		have, err := host.Routing(family)
		if err != nil {
			return ProbeResult{}, fmt.Errorf("%w: %s: %w", ErrPreflight, family, err)
		}
		for _, lost := range missing(want.Routing, have).Lines(family) {
			result.Findings = append(result.Findings, "missing: "+lost)
		}
		to := probeNets[family].beyond
		index := host.egressInterface(to)
		if index == 0 {
			result.Unproved = append(result.Unproved, family.String()+" has no route out")
			continue
		}
		uplink, err := handle.LinkByIndex(index)
		if err != nil {
			return ProbeResult{}, fmt.Errorf("%w: finding interface %d: %w", ErrPreflight, index, err)
		}
		for _, probe := range witnessed(spec, family, uplink.Attrs().Name) {
			if len(result.Findings) == maxLost {
				return result, nil
			}
			switch proved, err := probe.witness(ctx, host, want); {
			case errors.Is(err, errTaken):
				result.Unproved = append(result.Unproved, fmt.Sprintf("%s: probe %s: %v", family, probe, err))
			case err != nil:
				result.Findings = append(result.Findings, fmt.Sprintf("%s: probe %s: %v", family, probe, err))
			case !proved && probe.DstPort == probePort:
				result.Unproved = append(result.Unproved, family.String()+" connections to "+to.String()+" are not to be intercepted")
			}
		}
	}
	return result, nil
}

// witnessed returns the probes of Witness, with the uid and gid of this process.
func witnessed(spec interception.Spec, family ruleset.Family, uplink string) []probe {
	ways := sink{beyond: map[ruleset.Family]map[string]netip.Addr{family: {uplink: probeNets[family].beyond}}}
	var all []probe
	for _, p := range probes(spec, family, ways) {
		if p.Mark == 0 && p.uplink == uplink {
			all = append(all, p)
		}
	}
	return all
}

// witness sends the probe if the rules take it to a port of the proxy. proved
// reports whether it did and arrived there, or as far as can be seen. One that is
// lost is sent again: a busy node may lose a packet.
func (p *probe) witness(ctx context.Context, host *Host, want ruleset.RuleSet) (proved bool, err error) {
	outcome := ruleset.Trace(want, ruleset.Host{Uplink: p.uplink}, p.Packet).Outcome
	way := func(ctx context.Context) error { return p.arrives(ctx, outcome.Port, host.accepted) }
	switch outcome.Fate {
	case ruleset.Redirected:
	case ruleset.TProxied:
		way = func(ctx context.Context) error { return p.turnsRound(ctx, host.netlink) }
	default:
		return false, nil
	}
	for range 3 {
		if err = way(ctx); !isLost(err) {
			break
		}
	}
	return err == nil, err
}

// errTaken is the error of a datagram to a port where somebody listens already, and
// so takes it unseen.
var errTaken = errors.New("somebody listens at the proxy's port already")

// findAccepted reports whether a port here has accepted a connection from an
// address.
type findAccepted func(port uint16, from netip.AddrPort) (bool, error)

// arrives sends the probe and waits for it at a port of the proxy. If somebody
// listens there already, a connection that stands is not enough: it may have got to
// its destination. So the other end of it has to be here, at that port.
func (p *probe) arrives(ctx context.Context, port uint16, accepted findAccepted) error {
	wildcard := netip.IPv6Unspecified()
	if p.Family == ruleset.IPv4 {
		wildcard = netip.IPv4Unspecified()
	}
	proxy, err := listenWith(ctx, net.ListenConfig{}, p.Protocol, netip.AddrPortFrom(wildcard, port))
	taken := errors.Is(err, unix.EADDRINUSE)
	if err != nil && !taken {
		return err
	}
	if !taken {
		defer proxy.Close()
	} else if p.Protocol != "tcp" {
		return fmt.Errorf("%w, %d", errTaken, port)
	}
	dialer := net.Dialer{Timeout: probePatience, Control: onSocket(func(fd int) error { return oneHop(fd, p.Family) })}
	conn, err := dialer.DialContext(ctx, p.network(), netip.AddrPortFrom(p.Dst, p.DstPort).String())
	if err != nil {
		return fmt.Errorf("did not reach port %d: %w", port, err)
	}
	defer conn.Close()
	if taken {
		from, err := netip.ParseAddrPort(conn.LocalAddr().String())
		if err != nil {
			return err
		}
		here, err := accepted(port, from)
		if err == nil && !here {
			err = fmt.Errorf("reached its destination instead of port %d", port)
		}
		return err
	}
	sent := []byte(rand.Text())
	if _, err := conn.Write(sent); err != nil {
		return fmt.Errorf("sending to port %d: %w", port, err)
	}
	got, err := proxy.await(len(sent))
	if err != nil {
		return fmt.Errorf("did not reach port %d: %w", port, err)
	}
	if !bytes.Equal(got, sent) {
		return fmt.Errorf("port %d was reached by somebody else", port)
	}
	return nil
}

// accepted implements findAccepted. A listener for both families accepts IPv4
// connections by IPv6 sockets.
func (h *Host) accepted(port uint16, from netip.AddrPort) (bool, error) {
	for _, family := range ruleset.Families {
		sockets, err := listSockets(h.netlink.SocketDiagTCP, family)
		if errors.Is(err, errNoSocketList) {
			return false, err
		}
		if err != nil {
			return false, fmt.Errorf("listing the sockets: %w", err)
		}
		for _, socket := range sockets {
			client, _ := netip.AddrFromSlice(socket.ID.Destination)
			if socket.ID.SourcePort == port && netip.AddrPortFrom(client.Unmap(), socket.ID.DestinationPort) == from {
				return true, nil
			}
		}
	}
	return false, nil
}

// turnsRound sends the probe and looks whether it leaves by lo. TPROXY takes the
// pod's own packets where they come in again, and gives them to transparent sockets
// only, for which this process may have no privilege. But lo counts them before, and
// while a pod waits for its gate, nobody else uses lo.
func (p *probe) turnsRound(ctx context.Context, links *netlink.Handle) error {
	before, err := loopbackPackets(links)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		dialer := net.Dialer{Control: onSocket(func(fd int) error { return oneHop(fd, p.Family) })}
		conn, err := dialer.DialContext(ctx, p.network(), netip.AddrPortFrom(p.Dst, p.DstPort).String())
		if err == nil {
			_ = conn.Close()
		}
		ended <- err
	}()
	for over := false; !over; {
		select {
		case err = <-ended:
			over = true
		case <-time.After(loopbackPause):
		}
		packets, failed := loopbackPackets(links)
		if failed != nil || packets > before {
			return failed
		}
	}
	if err != nil {
		return fmt.Errorf("did not turn round: %w", err)
	}
	return errors.New("did not turn round: somebody outside answered")
}

// loopbackPause is how long is waited before lo is looked at again.
const loopbackPause = 5 * time.Millisecond

// loopbackPackets returns how many packets lo has carried.
func loopbackPackets(links *netlink.Handle) (uint64, error) {
	lo, err := links.LinkByIndex(loopbackIndex)
	if err != nil {
		return 0, fmt.Errorf("%w: finding lo: %w", ErrPreflight, err)
	}
	if lo.Attrs().Statistics == nil {
		return 0, fmt.Errorf("%w: the kernel does not tell what lo has carried", ErrPreflight)
	}
	return lo.Attrs().Statistics.TxPackets, nil
}

// oneHop keeps a packet from going farther than the node.
func oneHop(fd int, family ruleset.Family) error {
	if family == ruleset.IPv6 {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, 1)
}
