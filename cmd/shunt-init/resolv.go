//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
)

// resolvConf lists a pod's resolvers, a "nameserver ADDRESS" a line
// (resolv.conf(5)).
const resolvConf = "/etc/resolv.conf"

// withResolvers fills in the DNS servers whose queries are captured, where the
// arguments leave them to the pod's resolv.conf.
func withResolvers(spec interception.Spec, opts interception.Options) (interception.Spec, error) {
	if !spec.DNS.Redirect || spec.DNS.All || spec.DNS.Servers != nil {
		return spec, nil
	}
	if opts.NetNS != "" {
		return spec, fmt.Errorf("--redirect-dns: with --netns the %s here is not the pod's; "+
			"accepted: --dns-servers or --capture-all-dns too", resolvConf)
	}
	text, err := os.ReadFile(resolvConf)
	if err != nil {
		return spec, fmt.Errorf("%w: reading the pod's resolvers: %w", kernel.ErrPreflight, err)
	}
	spec.DNS.Servers, err = nameservers(string(text))
	if err != nil {
		return spec, fmt.Errorf("%w: %s: %w", kernel.ErrPreflight, resolvConf, err)
	}
	return spec, nil
}

// nameservers reads the resolvers of a resolv.conf. None at all is an error:
// DNS was to be captured, and nothing would be.
func nameservers(text string) (interception.Prefixes, error) {
	var words []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		addr, err := netip.ParseAddr(fields[1])
		if err != nil {
			return nil, fmt.Errorf("nameserver %q is no address", fields[1])
		}
		words = append(words, addr.WithZone("").Unmap().String())
	}
	if len(words) == 0 {
		return nil, fmt.Errorf("no nameserver; accepted: --dns-servers or --capture-all-dns")
	}
	return interception.ParseAddresses(strings.Join(words, ","))
}
