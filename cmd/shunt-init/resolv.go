//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// resolvConf lists a pod's resolvers, one "nameserver ADDRESS" a line
// (resolv.conf(5)).
const resolvConf = "/etc/resolv.conf"

// podResolvers returns the pod's DNS servers if the rules or the proxy need them.
// It returns none only if DNS is not captured.
//
// If DNS is captured, a server in the pod itself, such as dnsmasq, is left out: its
// own queries are captured too, and the proxy would send them back to it.
func podResolvers(spec interception.Spec, opts interception.Options) ([]netip.Addr, error) {
	needed := opts.Share != "" || spec.DNS.Redirect && !spec.DNS.All
	if !needed {
		return nil, nil
	}
	own, err := ownAddresses(opts)
	if err != nil {
		return nil, err
	}
	if spec.DNS.Servers != nil {
		return givenResolvers(spec.DNS.Servers, own, opts)
	}
	if opts.NetNS != "" {
		return nil, fmt.Errorf("%s: with --netns the %s here is not the pod's; accepted: %s",
			askingFlag(opts), resolvConf, alternative(opts))
	}
	text, err := os.ReadFile(resolvConf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: reading the pod's resolvers: %w", kernel.ErrPreflight, err)
	}
	servers, err := nameservers(string(text))
	if err == nil && spec.DNS.Redirect {
		servers, err = capturedResolvers(servers, own, opts)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", kernel.ErrPreflight, resolvConf, err)
	}
	return servers, nil
}

// givenResolvers returns those of --dns-servers. Without any, the proxy is trusted
// to know one.
func givenResolvers(given interception.Prefixes, own func(netip.Addr) bool, opts interception.Options) ([]netip.Addr, error) {
	var servers []netip.Addr
	for _, p := range given {
		if opts.Share != "" && own(p.Addr()) {
			return nil, fmt.Errorf("--dns-servers: %s is %s; accepted: servers outside the pod", p.Addr(), loopsBack)
		}
		servers = append(servers, p.Addr())
	}
	return servers, nil
}

// capturedResolvers returns the nameservers whose queries are captured: those
// outside the pod.
func capturedResolvers(all []netip.Addr, own func(netip.Addr) bool, opts interception.Options) ([]netip.Addr, error) {
	outside := slices.DeleteFunc(slices.Clone(all), own)
	switch {
	case len(outside) > 0:
		return outside, nil
	case len(all) > 0:
		return nil, fmt.Errorf("nameserver %s is %s; accepted: a nameserver outside the pod, or %s", all[0], loopsBack, alternative(opts))
	default:
		return nil, fmt.Errorf("no nameserver for captured queries; accepted: %s", alternative(opts))
	}
}

// loopsBack is what is wrong with a server in the pod.
const loopsBack = "an address of the pod itself, whose own queries would be captured and sent back to it"

// ownAddresses returns a function that reports whether an address is the pod's: of
// loopback, or of an interface. The interfaces of another namespace cannot be
// listed here.
func ownAddresses(opts interception.Options) (func(netip.Addr) bool, error) {
	var own []netip.Addr
	if opts.NetNS == "" {
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			return nil, fmt.Errorf("%w: listing the pod's addresses: %w", kernel.ErrPreflight, err)
		}
		for _, a := range addrs {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				own = append(own, prefix.Addr())
			}
		}
	}
	return func(a netip.Addr) bool {
		return ruleset.ThisHost(a) || slices.Contains(own, a.WithZone(""))
	}, nil
}

// askingFlag returns the flag that asks for the pod's resolvers.
func askingFlag(opts interception.Options) string {
	if opts.Share != "" {
		return "--share"
	}
	return "--redirect-dns"
}

// alternative returns the flags that make resolv.conf unnecessary. A proxy that
// gets the queries to any server has to know one to forward them to.
func alternative(opts interception.Options) string {
	if opts.Share != "" {
		return "--redirect-dns and --dns-servers, without --capture-all-dns"
	}
	return "--dns-servers or --capture-all-dns"
}

// nameservers reads the resolvers of a resolv.conf, in their order. The zone of a
// link-local address has to be the name of an interface.
func nameservers(text string) ([]netip.Addr, error) {
	var servers []netip.Addr
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		addr, err := netip.ParseAddr(fields[1])
		if _, badZone := interception.ParseInterfaces(addr.Zone()); err != nil || badZone != nil {
			return nil, fmt.Errorf("nameserver %q is not an address", fields[1])
		}
		if addr = addr.Unmap(); !slices.Contains(servers, addr) {
			servers = append(servers, addr)
		}
	}
	return servers, nil
}

// prefixesOf returns the addresses as the rules name them: sorted, without zones.
func prefixesOf(servers []netip.Addr) interception.Prefixes {
	var prefixes interception.Prefixes
	for _, addr := range servers {
		prefixes = append(prefixes, netip.PrefixFrom(addr.WithZone(""), addr.BitLen()))
	}
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	return slices.Compact(prefixes)
}
