//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/shunt-dev/shunt/test/netns"
)

// addresses of one host.
type addresses struct{ v4, v6 netip.Addr }

func (a addresses) of(family string) netip.Addr {
	if family == "IPv4" {
		return a.v4
	}
	return a.v6
}

// families are both shown.
var families = []string{"IPv4", "IPv6"}

// The hosts: the pod and its client have addresses of a cluster, the host
// outside has addresses that are set apart for documentation.
var (
	podAddresses     = addresses{netip.MustParseAddr("10.244.0.7"), netip.MustParseAddr("fd00:10:244::7")}
	clientAddresses  = addresses{netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("fd00:10:244:1::5")}
	nodeAddresses    = addresses{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00:10::2")}
	outsideAddresses = addresses{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8::10")}
)

// network is a pod, a client of it and a host outside, each behind an eth0 of
// its own, and a node that routes between them.
type network struct {
	node, client, pod, outside *netns.NS
}

func newNetwork() (*network, error) {
	n := &network{}
	if err := n.build(); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

func (n *network) build() (err error) {
	if n.node, err = netns.New("node"); err != nil {
		return err
	}
	if err := n.node.Forward(); err != nil {
		return fmt.Errorf("making the node a router: %w", err)
	}
	for _, host := range []struct {
		name string
		ns   **netns.NS
		at   addresses
	}{{"client", &n.client, clientAddresses}, {"pod", &n.pod, podAddresses}, {"outside", &n.outside, outsideAddresses}} {
		if *host.ns, err = netns.New(host.name); err != nil {
			return err
		}
		if err := n.attach(*host.ns, host.at); err != nil {
			return err
		}
	}
	return nil
}

// attach connects a host to the node.
func (n *network) attach(host *netns.NS, at addresses) error {
	here := netns.End{NS: host, Name: "eth0", Addrs: []netip.Addr{at.v4, at.v6}}
	there := netns.End{NS: n.node, Name: host.Name(), Addrs: []netip.Addr{nodeAddresses.v4, nodeAddresses.v6}}
	if err := netns.Connect(here, there); err != nil {
		return err
	}
	for _, addr := range here.Addrs {
		if err := host.Route(netip.PrefixFrom(unspecified(addr), 0), "eth0"); err != nil {
			return err
		}
		if err := n.node.Route(netip.PrefixFrom(addr, addr.BitLen()), host.Name()); err != nil {
			return err
		}
	}
	return nil
}

func unspecified(addr netip.Addr) netip.Addr {
	if addr.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// close ends the network, and the processes in it.
func (n *network) close() error {
	var errs []error
	for _, ns := range []*netns.NS{n.client, n.pod, n.outside, n.node} {
		if ns != nil {
			errs = append(errs, ns.Close())
		}
	}
	return errors.Join(errs...)
}
