package kernel

import (
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// metaOperands are what the meta expression loads, by its keys.
var metaOperands = map[uint32]nft.Operand{
	unix.NFT_META_L4PROTO: {Property: nft.PropertyProtocol}, unix.NFT_META_NFPROTO: {Property: nft.PropertyFamily},
	unix.NFT_META_PROTOCOL: {Property: nft.PropertyEtherType},
	unix.NFT_META_IIF:      {Property: nft.PropertyInIndex}, unix.NFT_META_OIF: {Property: nft.PropertyOutIndex},
	unix.NFT_META_IIFNAME: {Property: nft.PropertyInInterface},
	unix.NFT_META_OIFNAME: {Property: nft.PropertyOutInterface},
	unix.NFT_META_MARK:    {Property: nft.PropertyMark},
	unix.NFT_META_SKUID:   {Property: nft.PropertyUID}, unix.NFT_META_SKGID: {Property: nft.PropertyGID},
}

// part is a place in a packet.
type part struct{ base, offset, size uint32 }

const (
	networkHeader   = unix.NFT_PAYLOAD_NETWORK_HEADER
	transportHeader = unix.NFT_PAYLOAD_TRANSPORT_HEADER
)

var transportParts = map[part]nft.Property{
	{transportHeader, 0, 2}: nft.PropertySourcePort, {transportHeader, 2, 2}: nft.PropertyDestinationPort,
	{transportHeader, 13, 1}: nft.PropertyTCPFlags,
}

// payload returns what lies at an offset of a packet. Of an address it may be the
// first bytes.
func (r *nativeReader) payload(base, offset, size uint32) nft.Operand {
	loaded := nft.Operand{Property: transportParts[part{base, offset, size}]}
	if base != networkHeader {
		return loaded
	}
	source, destination, protocol, length := uint32(12), uint32(16), uint32(9), uint32(4)
	if r.family == ruleset.IPv6 {
		source, destination, protocol, length = 8, 24, 6, 16
	}
	switch {
	case offset == source && size <= length:
		loaded.Property = nft.PropertySource
	case offset == destination && size <= length:
		loaded.Property = nft.PropertyDestination
	case offset == protocol && size == 1:
		loaded.Property = nft.PropertyProtocol
	}
	return loaded
}
