package kernel

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// iptablesTables are the names of the nft tables that iptables-nft uses. iptables
// does not see any others.
var iptablesTables = []string{"raw", "mangle", "nat", "filter", "security"}

// nftTables returns which of iptables' tables nf_tables has in this namespace. It
// asks the kernel; iptables-nft-save would be another process.
func nftTables(families ...ruleset.Family) ([]string, error) {
	tables, err := listTables()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, t := range tables {
		ofFamily := slices.ContainsFunc(families, func(f ruleset.Family) bool { return nftFamily(f) == t.kind })
		if ofFamily && slices.Contains(iptablesTables, t.name) {
			names = append(names, t.name)
		}
	}
	return names, nil
}

// nativeTable is a table of nf_tables.
type nativeTable struct {
	kind    nftables.TableFamily
	name    string
	dormant bool // the kernel does not call its chains
}

// listTables returns the tables of all families of nf_tables. A kernel without
// nf_tables has none.
func listTables() ([]nativeTable, error) {
	messages, err := dumpNative(nftables.TableFamilyUnspecified, unix.NFT_MSG_GETTABLE)
	if unknownToKernel(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the tables of nf_tables: %w", err)
	}
	const flagDormant = 1 // NFT_TABLE_F_DORMANT
	var all []nativeTable
	for _, message := range messages {
		attrs := message.attributes()
		flags := nft.BigEndian(attrs[unix.NFTA_TABLE_FLAGS])
		all = append(all, nativeTable{
			kind: message.family(), name: text(attrs[unix.NFTA_TABLE_NAME]), dormant: flags&flagDormant != 0,
		})
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
		attrs := message.attributes()
		c := &nftables.Chain{
			Name:  text(attrs[unix.NFTA_CHAIN_NAME]),
			Table: &nftables.Table{Name: text(attrs[unix.NFTA_CHAIN_TABLE]), Family: kind},
			Type:  nftables.ChainType(text(attrs[unix.NFTA_CHAIN_TYPE])),
		}
		if hook := attributes(attrs[unix.NFTA_CHAIN_HOOK]); hook[unix.NFTA_HOOK_HOOKNUM] != nil {
			c.Hooknum = nftables.ChainHookRef(nftables.ChainHook(nft.BigEndian(hook[unix.NFTA_HOOK_HOOKNUM])))
			c.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(int32(nft.BigEndian(hook[unix.NFTA_HOOK_PRIORITY]))))
		}
		if policy := attrs[unix.NFTA_CHAIN_POLICY]; policy != nil {
			value := nftables.ChainPolicy(nft.BigEndian(policy))
			c.Policy = &value
		}
		all = append(all, c)
	}
	return all, nil
}

// dumpNative asks nf_tables for everything of one kind in a family.
func dumpNative(kind nftables.TableFamily, message int) ([]answer, error) {
	return askNFTables(message, unix.NLM_F_DUMP, kind, func(*batch) {})
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
	own, err := ownTables()
	if err != nil || len(own) == 0 {
		return holdsNothing, err
	}
	return holdsOurs, nil
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
