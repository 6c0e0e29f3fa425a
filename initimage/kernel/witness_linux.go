package kernel

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"

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
	host := &Host{netlink: handle}
	defer handle.Close()
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
			switch proved, err := probe.witness(ctx, want, host.accepted); {
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
// reports whether it did and arrived there. One that is lost is sent again: a busy
// node may lose a packet. accepted finds what somebody else has accepted here.
func (p *probe) witness(ctx context.Context, want ruleset.RuleSet, accepted findAccepted) (proved bool, err error) {
	outcome := ruleset.Trace(want, ruleset.Host{Uplink: p.uplink}, p.Packet).Outcome
	if outcome.Fate != ruleset.Redirected {
		return false, nil
	}
	for range 3 {
		if err = p.arrives(ctx, outcome.Port, accepted); !isLost(err) {
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
		sockets, err := h.netlink.SocketDiagTCP(uint8(netlinkFamily(family)))
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
			return false, errors.New("the kernel does not list sockets (CONFIG_INET_DIAG)")
		}
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
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

// oneHop keeps a packet from going farther than the node.
func oneHop(fd int, family ruleset.Family) error {
	if family == ruleset.IPv6 {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, 1)
}
