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

// Witness sends those probes for which a process needs no privilege, in the network
// namespace of this thread: connections of its own to addresses outside, which have
// to arrive at the proxy's ports here instead. Host.Probe sends the others: in from
// outside, and with the proxy's marks.
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
		want := ruleset.Build(spec, family)
		for _, probe := range witnessed(spec, family, uplink.Attrs().Name) {
			if len(result.Findings) == maxLost {
				return result, nil
			}
			switch proved, err := probe.witness(ctx, want); {
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
// reports whether it did and arrived there. One that is lost is sent once more: a
// busy node may lose a packet.
func (p *probe) witness(ctx context.Context, want ruleset.RuleSet) (proved bool, err error) {
	outcome := ruleset.Trace(want, ruleset.Host{Uplink: p.uplink}, p.Packet).Outcome
	if outcome.Fate != ruleset.Redirected {
		return false, nil
	}
	err = p.arrives(ctx, outcome.Port)
	if isLost(err) {
		err = p.arrives(ctx, outcome.Port)
	}
	return err == nil, err
}

// arrives sends the probe and waits for it at a port of the proxy. If the proxy
// listens there already, it is enough that the connection stands.
func (p *probe) arrives(ctx context.Context, port uint16) error {
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
	}
	dialer := net.Dialer{Timeout: probePatience, Control: onSocket(func(fd int) error { return oneHop(fd, p.Family) })}
	conn, err := dialer.DialContext(ctx, p.network(), netip.AddrPortFrom(p.Dst, p.DstPort).String())
	if err != nil {
		return fmt.Errorf("did not reach port %d: %w", port, err)
	}
	defer conn.Close()
	if taken {
		return nil
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

// oneHop keeps a packet from going farther than the node.
func oneHop(fd int, family ruleset.Family) error {
	if family == ruleset.IPv6 {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, 1)
}
