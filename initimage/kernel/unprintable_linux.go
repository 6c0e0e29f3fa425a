package kernel

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/nftables"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// unprintable stands for a rule in a chain of ours that iptables cannot print. It
// is a target that nobody has.
const unprintable = "UNPRINTABLE_BY_IPTABLES"

// saveByChain replaces save where iptables-save fails: at a rule of nft that
// iptables cannot express, it stops. saveByChain lists every chain by itself. For a
// chain of ours it is enough to know that it is not as it should be: the next
// change empties it. A chain of others cannot be changed then, which is an error.
func (h *Host) saveByChain(ctx context.Context, family ruleset.Family, why error) (string, error) {
	chains, err := listChains(nftFamily(family))
	if err != nil {
		return "", fmt.Errorf("listing the chains of nf_tables: %w", err)
	}
	command := strings.TrimSuffix(h.backend.command(family, "save"), "-save")
	var text strings.Builder
	for _, table := range iptablesTables {
		var declared, rules strings.Builder
		for _, chain := range chains {
			if chain.Table.Name != table {
				continue
			}
			policy := "-"
			if chain.Policy != nil {
				policy = map[nftables.ChainPolicy]string{
					nftables.ChainPolicyAccept: string(ruleset.Accept), nftables.ChainPolicyDrop: string(ruleset.Drop),
				}[*chain.Policy]
			}
			fmt.Fprintf(&declared, ":%s %s [0:0]\n", chain.Name, policy)
			listed, err := runCommand(ctx, "", command, "-t", table, "-S", chain.Name)
			switch ours := strings.HasPrefix(chain.Name, ruleset.ChainPrefix); {
			case err != nil && ours:
				fmt.Fprintf(&rules, "-A %s -j %s\n", chain.Name, unprintable)
			case err != nil:
				return "", fmt.Errorf("iptables cannot print the %s chain %s of table %s, which holds a native nft rule; "+
					"delete it with nft: %w", family, chain.Name, table, why)
			}
			for line := range strings.Lines(listed) {
				if err == nil && strings.HasPrefix(line, "-A ") {
					rules.WriteString(line)
				}
			}
		}
		if declared.Len() > 0 {
			fmt.Fprintf(&text, "*%s\n%s%sCOMMIT\n", table, &declared, &rules)
		}
	}
	if !strings.Contains(text.String(), unprintable) {
		return "", why // it failed for another reason
	}
	return text.String(), nil
}
