package kernel

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// iptablesTables are the names of the nft tables that iptables-nft uses. iptables
// does not see any others.
var iptablesTables = []string{"raw", "mangle", "nat", "filter", "security"}

// nftTables returns which of iptables' tables nf_tables has in this namespace. It
// asks the kernel; iptables-nft-save would be another process.
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

// nftHoldsOurs reports whether one of iptables' tables in nf_tables has a chain of
// Shunt. It runs no command.
func nftHoldsOurs() (bool, error) {
	conn, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("opening a socket to nf_tables: %w", err)
	}
	for _, family := range ruleset.Families {
		chains, err := conn.ListChainsOfTableFamily(nftFamily(family))
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
	conn, err := nftables.New()
	if err != nil {
		return holdsNothing, fmt.Errorf("opening a socket to nf_tables: %w", err)
	}
	for _, family := range ruleset.Families {
		own, err := ownTable(conn, family)
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
