package kernel

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// iptablesTables are the names of the nft tables that iptables-nft uses; all
// others are somebody else's, and not for iptables to see.
var iptablesTables = []string{"raw", "mangle", "nat", "filter", "security"}

// nftTables asks the kernel which of iptables' tables nf_tables has in this
// namespace. A process of iptables-nft-save would answer it too.
func nftTables(family ruleset.Family) ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("opening a socket to nf_tables: %w", err)
	}
	tables, err := conn.ListTablesOfFamily(nftFamily(family))
	if unknownToKernel(err) {
		return nil, nil // a kernel without nf_tables has none of its tables
	}
	if err != nil {
		return nil, fmt.Errorf("listing the tables of nf_tables: %w", err)
	}
	var names []string
	for _, t := range tables {
		if slices.Contains(iptablesTables, t.Name) {
			names = append(names, t.Name)
		}
	}
	return names, nil
}

// unknownToKernel reports whether a kernel says that it has no nf_tables, or no
// tables of a family.
func unknownToKernel(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) ||
		errors.Is(err, unix.EAFNOSUPPORT)
}

// deleteNFTTable takes an nft table away with all that is in it.
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
