//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"strings"
)

// resolversCluster is the name under which the proxy's bootstrap looks for the
// pod's resolvers.
const resolversCluster = "dns"

// dnsPort is the port of DNS servers, udp and tcp (RFC 1035, 4.2).
const dnsPort = 53

// resolversFile prints nameservers as Envoy reads the endpoints of a cluster
// from a file (path_config_source): a DiscoveryResponse with one
// ClusterLoadAssignment. It is printed without encoding/json, which this program
// would carry 190 kB of for one file; an address needs no quoting.
func resolversFile(servers []netip.Addr) []byte {
	endpoints := make([]string, len(servers))
	for i, addr := range servers {
		endpoints[i] = fmt.Sprintf(`{"endpoint":{"address":{"socket_address":{"address":%q,"port_value":%d}}}}`, addr.String(), dnsPort)
	}
	return fmt.Appendf(nil, `{"resources":[{"@type":"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",`+
		`"cluster_name":%q,"endpoints":[{"lb_endpoints":[%s]}]}]}`+"\n", resolversCluster, strings.Join(endpoints, ","))
}
