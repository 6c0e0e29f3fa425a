package kernel

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Others implements VerifiableNamespace. Call it after Rules: of iptables' tables in
// nf_tables, it reads those natively that no iptables-save printed. Without an
// iptables-nft in the image that is all of them.
func (h *Host) Others(ctx context.Context, family ruleset.Family) ([]ruleset.RuleSet, error) {
	var others []ruleset.RuleSet
	var printed []string
	if h.backend.name == interception.BackendNFT {
		printed = slices.Clone(h.printed[family])
	}
	for _, name := range backends {
		b := backend{name: name}
		if b.native() || name == h.backend.name {
			continue
		}
		names, err := b.tables(family)
		if err != nil {
			return nil, err
		}
		if len(names) == 0 {
			continue
		}
		found, err := findBackend(name)
		if err != nil && name == interception.BackendNFT {
			continue
		}
		if err != nil {
			return nil, err
		}
		rs, err := readOther(ctx, found, family)
		if err != nil {
			return nil, err
		}
		others = append(others, rs)
		if name == interception.BackendNFT {
			for _, t := range rs.Tables {
				printed = append(printed, t.Name)
			}
		}
	}
	if h.Native() {
		printed = append(printed, nft.TableName)
	}
	native, err := nativeRules(family, printed, h.netlink)
	if err != nil {
		return nil, fmt.Errorf("reading the native rules of nf_tables: %w", err)
	}
	return slices.DeleteFunc(append(others, native), ruleset.RuleSet.Empty), nil
}

// readOther returns the rules of a backend of iptables that is not used.
func readOther(ctx context.Context, b backend, family ruleset.Family) (ruleset.RuleSet, error) {
	text, err := b.save(ctx, family)
	if err != nil {
		return ruleset.RuleSet{}, err
	}
	rs, err := ruleset.Parse(family, text)
	if err != nil {
		return ruleset.RuleSet{}, fmt.Errorf("parsing the rules of iptables-%s: %w", b.name, err)
	}
	rs.Party = "iptables-" + string(b.name)
	return rs, nil
}

// Addresses implements VerifiableNamespace. The uplink is the interface of the
// default route, or else the first; Trials sends packets by the others too.
func (h *Host) Addresses() (ruleset.Host, error) {
	host := ruleset.Host{Uplink: probeLink}
	links, err := h.netlink.LinkList()
	if err != nil {
		return host, fmt.Errorf("listing the interfaces: %w", err)
	}
	uplinks, err := h.defaultLinks()
	if err != nil {
		return host, fmt.Errorf("listing the default routes: %w", err)
	}
	for _, link := range links {
		attrs := link.Attrs()
		if attrs.Flags&net.FlagLoopback != 0 || attrs.Name == probeLink || attrs.Name == probePeer {
			continue
		}
		own, err := h.addressesOf(link)
		if err != nil {
			return host, err
		}
		host.Interfaces = append(host.Interfaces, ruleset.Interface{Name: attrs.Name, Addresses: own})
		if host.Uplink == probeLink || uplinks[attrs.Index] {
			host.Uplink = attrs.Name
			host.Addresses = append(own, host.Addresses...)
		} else {
			host.Addresses = append(host.Addresses, own...)
		}
	}
	host.NoLocalnet, err = noLocalnet(host.Interfaces)
	return host, err
}

// addressesOf returns the addresses of an interface that others can reach it by.
func (h *Host) addressesOf(link netlink.Link) ([]netip.Addr, error) {
	addrs, err := h.netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("listing the addresses of %s: %w", link.Attrs().Name, err)
	}
	var own []netip.Addr
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
			own = append(own, ip)
		}
	}
	return own, nil
}

// noLocalnet reports whether the kernel drops what arrives for 127.0.0.0/8 on every
// interface.
func noLocalnet(interfaces []ruleset.Interface) (bool, error) {
	for _, i := range append([]ruleset.Interface{{Name: "all"}}, interfaces...) {
		value, err := sysctl("net/ipv4/conf/" + i.Name + "/route_localnet")
		if err != nil {
			return false, fmt.Errorf("reading route_localnet of %s: %w", i.Name, err)
		}
		if value == "1" {
			return false, nil
		}
	}
	return true, nil
}

// defaultLinks returns the indices of the interfaces of default routes.
func (h *Host) defaultLinks() (map[int]bool, error) {
	links := map[int]bool{}
	for _, family := range h.families {
		routes, err := h.netlink.RouteList(nil, netlinkFamily(family))
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			ones := 0
			if r.Dst != nil {
				ones, _ = r.Dst.Mask.Size()
			}
			if ones == 0 {
				links[r.LinkIndex] = true
			}
		}
	}
	return links, nil
}
