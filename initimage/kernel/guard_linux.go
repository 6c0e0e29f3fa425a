package kernel

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// probePriority is the priority (SO_PRIORITY) of the sockets that send probes. It
// tells their packets apart: no rule of iptables looks at it, and address
// translation keeps it.
const probePriority = 0x133

// guardTable exists only while probes are sent.
var guardTable = &nftables.Table{Name: probeLink, Family: nftables.TableFamilyINet}

// Priorities of the guard's chains: before anything else looks at a packet, and
// after everything has.
var (
	beforeAll = nftables.ChainPriorityRef(*nftables.ChainPriorityConntrackDefrag + 1)
	afterAll  = nftables.ChainPriorityRef(*nftables.ChainPriorityConntrackConfirm - 1)
)

// guardProbes drops probes at the last hook before the wire, and lets those in that
// arrive by the link from its other end. That end plays another host. What is sent
// to it is not tracked, so that no nat rule takes it for a connection of the pod.
// The alias stands there for the pod's own address. guardProbes reports whether the
// kernel has what this takes.
func guardProbes(link, peer int) (bool, error) {
	conn, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("opening a socket to nf_tables: %w", err)
	}
	table := conn.AddTable(guardTable)
	chain := func(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority) func(...expr.Any) {
		c := conn.AddChain(&nftables.Chain{
			Name: name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: priority,
		})
		return func(exprs ...expr.Any) { conn.AddRule(&nftables.Rule{Table: table, Chain: c, Exprs: exprs}) }
	}
	sent := chain("sent", nftables.ChainHookOutput, beforeAll)
	arriving := chain("arriving", nftables.ChainHookPrerouting, beforeAll)
	leaving := chain("leaving", nftables.ChainHookPostrouting, afterAll)
	sent(append(matchMeta(expr.MetaKeyOIF, peer), &expr.Notrack{})...)
	arriving(append(matchMeta(expr.MetaKeyIIF, peer), &expr.Notrack{})...)
	for _, family := range ruleset.Families {
		addrs := probeNets[family]
		own := addrs.own.Addr()
		arriving(append(matchMeta(expr.MetaKeyIIF, peer), exchange(family, false, own.AsSlice(), addrs.alias.AsSlice())...)...)
		leaving(append(matchMeta(expr.MetaKeyOIF, peer), exchange(family, true, addrs.alias.AsSlice(), own.AsSlice())...)...)
	}
	drop := matchMeta(expr.MetaKeyPRIORITY, probePriority)
	for _, spared := range []int{loopbackIndex, link, peer} {
		drop = append(drop, matchMetaNot(expr.MetaKeyOIF, spared)...)
	}
	leaving(append(drop, &expr.Verdict{Kind: expr.VerdictDrop})...)
	err = conn.Flush()
	if unknownToKernel(err) || errors.Is(err, unix.ENOENT) { // nf_tables, or a part of it, is missing
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("keeping probes from the wire: %w", err)
	}
	return true, nil
}

// unguardProbes undoes guardProbes. The kernel frees what it deletes some time
// later, and closing a socket to netfilter waits for that. So the caller closes this
// one when something else has taken as long.
func unguardProbes(socket netfilterSocket) error {
	b := &batch{}
	b.add("the table "+guardTable.Name, unix.NFT_MSG_DELTABLE, byte(guardTable.Family), 0)
	b.text(unix.NFTA_TABLE_NAME, guardTable.Name)
	if err := b.send(socket, 0); err != nil && !errors.Is(err, unix.ENOENT) && !unknownToKernel(err) {
		return fmt.Errorf("deleting %w", err)
	}
	return nil
}

func matchMeta(key expr.MetaKey, value int) []expr.Any { return compareMeta(key, expr.CmpOpEq, value) }
func matchMetaNot(key expr.MetaKey, value int) []expr.Any {
	return compareMeta(key, expr.CmpOpNeq, value)
}

func compareMeta(key expr.MetaKey, op expr.CmpOp, value int) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: binaryutil.NativeEndian.PutUint32(uint32(value))},
	}
}

// Offsets of the addresses in an IP header (RFC 791, 3.1; RFC 8200, 3), and of the
// checksum. An IPv6 header has no checksum, but nft corrects those of tcp and udp
// only together with one. Half of the flow label, which nobody reads, stands in for
// it.
const (
	ipv4Source, ipv4Destination, ipv4Checksum = 12, 16, 10
	ipv6Source, ipv6Destination, ipv6Checksum = 8, 24, 2
)

// exchange replaces one address by another.
func exchange(family ruleset.Family, destination bool, from, to []byte) []expr.Any {
	protocol, offset, checksum := byte(unix.NFPROTO_IPV4), uint32(ipv4Source), uint32(ipv4Checksum)
	if destination {
		offset = ipv4Destination
	}
	if family == ruleset.IPv6 {
		protocol, offset, checksum = unix.NFPROTO_IPV6, ipv6Source, ipv6Checksum
		if destination {
			offset = ipv6Destination
		}
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(from))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: from},
		&expr.Immediate{Register: 1, Data: to},
		&expr.Payload{
			OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseNetworkHeader,
			Offset: offset, Len: uint32(len(to)), CsumType: expr.CsumTypeInet, CsumOffset: checksum,
			CsumFlags: unix.NFT_PAYLOAD_L4CSUM_PSEUDOHDR,
		},
	}
}
