package netns

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Impersonate rewrites packets on the wire, so that real sockets of the namespace
// send frames that no kernel would. What goes to or comes from the alias has the
// address instead once it has left, and the answers come back to the alias. It
// tracks no connections, and no routing decision of the namespace sees the address.
func (ns *NS) Impersonate(alias, address netip.Addr) error {
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns.file.Fd())))
	if err != nil {
		return fmt.Errorf("opening a socket to nf_tables in %s: %w", ns.name, err)
	}
	header := ipv4Header
	if alias.Is6() {
		header = ipv6Header
	}
	table := conn.AddTable(&nftables.Table{Name: "impersonate", Family: header.family})
	leaving := conn.AddChain(&nftables.Chain{
		Name: "leaving", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityLast,
	})
	arriving := conn.AddChain(&nftables.Chain{
		Name: "arriving", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityFirst,
	})
	for _, offset := range []uint32{header.source, header.destination} {
		conn.AddRule(&nftables.Rule{Table: table, Chain: leaving, Exprs: header.replace(offset, alias, address)})
		conn.AddRule(&nftables.Rule{Table: table, Chain: arriving, Exprs: header.replace(offset, address, alias)})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("having %s be %s outside of %s: %w", alias, address, ns.name, err)
	}
	return nil
}

// ipHeader holds the offsets of an IP header.
type ipHeader struct {
	family                        nftables.TableFamily
	source, destination, checksum uint32
}

// The headers of RFC 791 (3.1) and RFC 8200 (3). An IPv6 header has no checksum,
// but the library corrects those of tcp and udp only together with one. Half of the
// flow label, which nobody reads, stands in for it.
var (
	ipv4Header = ipHeader{nftables.TableFamilyIPv4, 12, 16, 10}
	ipv6Header = ipHeader{nftables.TableFamilyIPv6, 8, 24, 2}
)

// replace replaces one address by another, and corrects the checksums: those of tcp
// and udp cover the addresses.
func (h ipHeader) replace(offset uint32, from, to netip.Addr) []expr.Any {
	const register = 1
	length := uint32(from.BitLen() / 8)
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: from.AsSlice()},
		&expr.Immediate{Register: register, Data: to.AsSlice()},
		&expr.Payload{
			OperationType: expr.PayloadWrite, SourceRegister: register,
			Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length,
			CsumType: expr.CsumTypeInet, CsumOffset: h.checksum, CsumFlags: unix.NFT_PAYLOAD_L4CSUM_PSEUDOHDR,
		},
	}
}
