package bootstrap

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// family is what differs between IPv4 and IPv6.
type family struct {
	suffix   string // of listener names, in Istio's way
	cluster  string // of the inbound cluster's name
	any      string // the address of all interfaces
	loopback string
	// inboundSource is what the application sees as its client in REDIRECT;
	// the rules tell the proxy's hop to the application by it.
	inboundSource string
}

var (
	ipv4 = family{suffix: "", cluster: "Ipv4", any: "0.0.0.0", loopback: "127.0.0.1", inboundSource: "127.0.0.6"}
	ipv6 = family{suffix: "_v6", cluster: "Ipv6", any: "::", loopback: "::1", inboundSource: "::6"}
)

func (b *builder) families() []family {
	var families []family
	if b.IPv4 {
		families = append(families, ipv4)
	}
	if b.IPv6 {
		families = append(families, ipv6)
	}
	return families
}

func socketAddress(host string, port uint16) *corev3.SocketAddress {
	return &corev3.SocketAddress{
		Address:       host,
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}
}

func address(host string, port uint16) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: socketAddress(host, port)}}
}

func udpAddress(host string, port uint16) *corev3.Address {
	at := socketAddress(host, port)
	at.Protocol = corev3.SocketAddress_UDP
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: at}}
}

// only is the range of one address.
func only(host string) []*corev3.CidrRange {
	bits := netip.MustParseAddr(host).BitLen()
	return []*corev3.CidrRange{{AddressPrefix: host, PrefixLen: wrapperspb.UInt32(uint32(bits))}}
}
