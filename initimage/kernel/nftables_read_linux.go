package kernel

import (
	"fmt"

	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// ownTables returns Shunt's tables by their families.
func ownTables() (map[ruleset.Family]nativeTable, error) {
	tables, err := listTables()
	if err != nil {
		return nil, err
	}
	own := map[ruleset.Family]nativeTable{}
	for _, t := range tables {
		for _, family := range ruleset.Families {
			if t.kind == nftFamily(family) && t.name == nft.TableName {
				own[family] = t
			}
		}
	}
	return own, nil
}

// readTable reads Shunt's table of a family back, as the rules that it was compiled
// from: what nft.Normal gives. What is not as Compile makes it becomes something
// that no rule set has. Without a table there are no rules.
func readTable(family ruleset.Family) (ruleset.RuleSet, error) {
	nothing := ruleset.RuleSet{Family: family}
	tables, err := ownTables()
	own, there := tables[family]
	if err != nil || !there {
		return nothing, err
	}
	chains, err := listChains(nftFamily(family))
	if err != nil {
		return nothing, fmt.Errorf("listing the chains: %w", err)
	}
	r := nativeReader{
		family: family, kind: nftFamily(family), table: nft.TableName, sets: map[string][]nft.Element{}, own: true,
	}
	table, err := r.read(chains)
	if err != nil {
		return nothing, fmt.Errorf("table %s: %w", nft.TableName, err)
	}
	return nft.FromTable(family, table, own.dormant), nil
}
