package kernel

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// iptablesTables are the names of the nft tables that iptables-nft uses. iptables
// does not see any others.
var iptablesTables = []string{"raw", "mangle", "nat", "filter", "security"}

// nftTables returns which of iptables' tables nf_tables has in this namespace. It
// asks the kernel; iptables-nft-save would be another process.
func nftTables(family ruleset.Family) ([]string, error) {
	tables, err := listTables(nftFamily(family))
	if unknownToKernel(err) {
		return nil, nil // a kernel without nf_tables has none of its tables
	}
	if err != nil {
		return nil, fmt.Errorf("listing the tables of nf_tables: %w", err)
	}
	var names []string
	for _, t := range tables {
		if slices.Contains(iptablesTables, t.name) {
			names = append(names, t.name)
		}
	}
	return names, nil
}

// nativeTable is a table of nf_tables.
type nativeTable struct {
	name    string
	dormant bool // the kernel does not call its chains
}

// listTables returns the tables of a family of nf_tables. This package asks for
// tables and chains itself: that takes a quarter of the CPU time that google/nftables
// takes.
func listTables(kind nftables.TableFamily) ([]nativeTable, error) {
	messages, err := dumpNative(kind, unix.NFT_MSG_GETTABLE)
	if err != nil {
		return nil, err
	}
	const flagDormant = 1 // NFT_TABLE_F_DORMANT
	var all []nativeTable
	for _, message := range messages {
		attrs := attributes(message)
		flags := bigEndian(attrs[unix.NFTA_TABLE_FLAGS])
		all = append(all, nativeTable{name: text(attrs[unix.NFTA_TABLE_NAME]), dormant: flags&flagDormant != 0})
	}
	return all, nil
}

// listChains returns the chains of all tables of a family of nf_tables.
func listChains(kind nftables.TableFamily) ([]*nftables.Chain, error) {
	messages, err := dumpNative(kind, unix.NFT_MSG_GETCHAIN)
	if err != nil {
		return nil, err
	}
	var all []*nftables.Chain
	for _, message := range messages {
		attrs := attributes(message)
		c := &nftables.Chain{
			Name:  text(attrs[unix.NFTA_CHAIN_NAME]),
			Table: &nftables.Table{Name: text(attrs[unix.NFTA_CHAIN_TABLE]), Family: kind},
			Type:  nftables.ChainType(text(attrs[unix.NFTA_CHAIN_TYPE])),
		}
		if hook := attributes(attrs[unix.NFTA_CHAIN_HOOK]); hook[unix.NFTA_HOOK_HOOKNUM] != nil {
			c.Hooknum = nftables.ChainHookRef(nftables.ChainHook(bigEndian(hook[unix.NFTA_HOOK_HOOKNUM])))
			c.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(int32(bigEndian(hook[unix.NFTA_HOOK_PRIORITY]))))
		}
		if policy := attrs[unix.NFTA_CHAIN_POLICY]; policy != nil {
			value := nftables.ChainPolicy(bigEndian(policy))
			c.Policy = &value
		}
		all = append(all, c)
	}
	return all, nil
}

// dumpNative asks nf_tables for everything of one kind in a family.
func dumpNative(kind nftables.TableFamily, message int) ([][]byte, error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|message, unix.NLM_F_DUMP)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(kind), Version: unix.NFNETLINK_V0})
	messages, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	for i, m := range messages {
		messages[i] = m[min(nl.SizeofNfgenmsg, len(m)):]
	}
	return messages, err
}

// nftHoldsOurs reports whether one of iptables' tables in nf_tables has a chain of
// Shunt. It runs no command.
func nftHoldsOurs() (bool, error) {
	for _, family := range ruleset.Families {
		chains, err := listChains(nftFamily(family))
		if err != nil {
			return false, fmt.Errorf("listing the chains of nf_tables: %w", err)
		}
		for _, c := range chains {
			if strings.HasPrefix(c.Name, ruleset.ChainPrefix) && slices.Contains(iptablesTables, c.Table.Name) {
				return true, nil
			}
		}
	}
	return false, nil
}

// nativeContent returns whether the native table of Shunt is there.
func nativeContent() (int, error) {
	for _, family := range ruleset.Families {
		own, err := ownTable(family)
		if err != nil {
			return holdsNothing, err
		}
		if own != nil {
			return holdsOurs, nil
		}
	}
	return holdsNothing, nil
}

// unknownToKernel reports whether an error means that the kernel has no nf_tables,
// or no tables of a family.
func unknownToKernel(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) ||
		errors.Is(err, unix.EAFNOSUPPORT)
}

// deleteNFTTable deletes an nft table with all that is in it.
func deleteNFTTable(family ruleset.Family, name string) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("opening a socket to nf_tables: %w", err)
	}
	conn.DelTable(&nftables.Table{Family: nftFamily(family), Name: name})
	return conn.Flush()
}

func nftFamily(family ruleset.Family) nftables.TableFamily {
	if family == ruleset.IPv6 {
		return nftables.TableFamilyIPv6
	}
	return nftables.TableFamilyIPv4
}
