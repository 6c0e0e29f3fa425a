//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
)

// resolvConf lists a pod's resolvers, a "nameserver ADDRESS" a line
// (resolv.conf(5)).
const resolvConf = "/etc/resolv.conf"

// podResolvers are the pod's DNS servers, where the arguments need them: for
// the rules, or for the proxy. There are none only where DNS is not captured.
func podResolvers(spec interception.Spec, opts interception.Options) ([]netip.Addr, error) {
	var servers []netip.Addr
	for _, p := range spec.DNS.Servers {
		servers = append(servers, p.Addr())
	}
	needed := opts.Share != "" || spec.DNS.Redirect && !spec.DNS.All
	if servers != nil || !needed {
		return servers, nil
	}
	if opts.NetNS != "" {
		return nil, fmt.Errorf("%s: with --netns the %s here is not the pod's; accepted: %s", neededBy(opts), resolvConf, instead(opts))
	}
	text, err := os.ReadFile(resolvConf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: reading the pod's resolvers: %w", kernel.ErrPreflight, err)
	}
	servers, err = nameservers(string(text))
	if err == nil && servers == nil && spec.DNS.Redirect {
		err = fmt.Errorf("no nameserver for captured queries; accepted: %s", instead(opts))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", kernel.ErrPreflight, resolvConf, err)
	}
	return servers, nil
}

// neededBy is the flag that asks for the pod's resolvers.
func neededBy(opts interception.Options) string {
	if opts.Share != "" {
		return "--share"
	}
	return "--redirect-dns"
}

// instead is what spares a look into resolv.conf. A proxy that is given the
// queries to any server has to know one to send them to.
func instead(opts interception.Options) string {
	if opts.Share != "" {
		return "--redirect-dns and --dns-servers, without --capture-all-dns"
	}
	return "--dns-servers or --capture-all-dns"
}

// nameservers reads the resolvers of a resolv.conf, in their order. A zone,
// which a link-local address needs, has to be the name of an interface.
func nameservers(text string) ([]netip.Addr, error) {
	var servers []netip.Addr
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		addr, err := netip.ParseAddr(fields[1])
		if _, badZone := interception.ParseInterfaces(addr.Zone()); err != nil || badZone != nil {
			return nil, fmt.Errorf("nameserver %q is no address", fields[1])
		}
		if addr = addr.Unmap(); !slices.Contains(servers, addr) {
			servers = append(servers, addr)
		}
	}
	return servers, nil
}

// prefixesOf are the addresses as the rules name them: sorted, without zones.
func prefixesOf(servers []netip.Addr) interception.Prefixes {
	var prefixes interception.Prefixes
	for _, addr := range servers {
		prefixes = append(prefixes, netip.PrefixFrom(addr.WithZone(""), addr.BitLen()))
	}
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	return slices.Compact(prefixes)
}
