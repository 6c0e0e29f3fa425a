package ruleset

import (
	"slices"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// dnsPort is the port of DNS servers, udp and tcp (RFC 1035, 4.2).
const dnsPort = 53

// Zones of conntrack. The app's query to a server, and the proxy's own query to the
// same server from the same port, would be one connection to conntrack, and it
// would send the proxy's answer to the app.
const (
	zoneProxy = 1 // the proxy and its servers
	zoneApp   = 2 // the app and the proxy
)

// capturesDNS reports whether any DNS query of the family goes to the proxy.
func (b *builder) capturesDNS() bool {
	return b.spec.DNS.Redirect && (b.spec.DNS.All || len(b.servers()) > 0)
}

// servers returns the resolvers of the family whose queries are captured.
func (b *builder) servers() interception.Prefixes { return b.prefixesOf(b.spec.DNS.Servers) }

// dns adds DNS capture to a system. Queries over tcp come from the chains of the
// pod's own connections, those over udp from OUTPUT.
func (b *builder) dns() {
	b.nat.add(chainDNS, b.forServers(func(server ...Match) []Rule {
		return []Rule{
			rule("DNS over udp to the proxy", Redirect{b.spec.DNS.Port}, append(server, udp)...),
			rule("DNS over tcp to the proxy", Redirect{b.spec.DNS.Port}, append(server, tcp)...),
		}
	})...)
	b.nat.add(chainDNSOutput, b.excludeLinkLocal()...)
	b.nat.add(chainDNSOutput, b.exclude()...)
	b.nat.add(chainDNSOutput, b.forApp("DNS queries of the app", Jump{Chain: chainDNS})...)
	b.nat.add("OUTPUT", rule("DNS queries over udp", Jump{Chain: chainDNSOutput}, udp, port(udp, dnsPort)))
	for _, name := range b.spec.VirtualInterfaces { // before answers: a query may come from port 53
		b.raw.add("PREROUTING", rule("DNS queries of a virtual machine", ConntrackZone{zoneApp}, InInterface{Name: name},
			udp, port(udp, dnsPort)))
	}
	b.raw.add("PREROUTING", b.forServers(func(server ...Match) []Rule {
		for i, m := range server {
			server[i] = Source{Prefix: m.(Destination).Prefix}
		}
		answer := slices.Concat(server, []Match{udp, sourcePort(udp, dnsPort)})
		return []Rule{rule("answers of DNS servers to the proxy", ConntrackZone{zoneProxy}, answer...)}
	})...)
	for _, name := range b.spec.VirtualInterfaces {
		in := InInterface{Name: name}
		b.nat.add("PREROUTING", rule("DNS queries of a virtual machine", Jump{Chain: chainDNS}, in, udp, port(udp, dnsPort)))
	}
	b.dnsZones()
}

// dnsZones puts the DNS packets that this host sends into their zones.
//
//	who    | packet                             | zone
//	proxy  | query to a server                  | proxy
//	anyone | answer from the proxy's DNS port   | app
//	app    | query                              | app
func (b *builder) dnsZones() {
	query, answer := port(udp, dnsPort), sourcePort(udp, b.spec.DNS.Port)
	for _, id := range b.proxy() {
		b.raw.add(chainDNSZone, rule("query of the proxy ("+id.description+") to a server", ConntrackZone{zoneProxy}, id.match, udp, query))
	}
	b.raw.add(chainDNSZone, b.forServers(func(server ...Match) []Rule {
		return b.forApp("query of the app", ConntrackZone{zoneApp}, append(server, udp, query)...)
	})...)
	b.raw.add("OUTPUT", // the first zone stays: an answer to port 53 is not a query
		rule("answers of the proxy to the app", ConntrackZone{zoneApp}, udp, answer),
		rule("DNS queries", Jump{Chain: chainDNSZone}, udp, query))
}

// forServers repeats rules for each server, or makes them once for all.
func (b *builder) forServers(rules func(server ...Match) []Rule) []Rule {
	if b.spec.DNS.All {
		return rules()
	}
	var all []Rule
	for _, server := range b.servers() {
		all = append(all, rules(Destination{Prefix: server})...)
	}
	return all
}
