package kernel

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/nftables"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// unprintable stands for what iptables cannot print in a chain of ours, as a
// target that nobody has.
const unprintable = "UNPRINTABLE_BY_IPTABLES"

// saveByChain is Save where iptables-save gives up: it prints no rule that nft
// made of what iptables lacks, and none behind it. Here every chain is asked
// for by itself. Of a chain of ours it is enough to know that it is not as it
// should be: the next change empties it. In a chain of others nothing can be
// changed then, and that is why.
func (h *Host) saveByChain(ctx context.Context, family ruleset.Family, why error) (string, error) {
	conn, err := nftables.New()
	if err != nil {
		return "", fmt.Errorf("opening a socket to nf_tables: %w", err)
	}
	chains, err := conn.ListChainsOfTableFamily(nftFamily(family))
	if err != nil {
		return "", fmt.Errorf("listing the chains of nf_tables: %w", err)
	}
	command := strings.TrimSuffix(h.backend.command(family, "save"), "-save")
	var text strings.Builder
	for _, table := range iptablesTables {
		var declared, rules strings.Builder
		for _, c := range chains {
			if c.Table.Name != table {
				continue
			}
			policy := "-"
			if c.Policy != nil {
				policy = map[nftables.ChainPolicy]string{
					nftables.ChainPolicyAccept: string(ruleset.Accept), nftables.ChainPolicyDrop: string(ruleset.Drop),
				}[*c.Policy]
			}
			fmt.Fprintf(&declared, ":%s %s [0:0]\n", c.Name, policy)
			listed, err := runCommand(ctx, "", command, "-t", table, "-S", c.Name)
			switch ours := strings.HasPrefix(c.Name, ruleset.ChainPrefix); {
			case err != nil && ours:
				fmt.Fprintf(&rules, "-A %s -j %s\n", c.Name, unprintable)
			case err != nil:
				return "", fmt.Errorf("iptables cannot print the %s chain %s of table %s, which has a rule of nft; "+
					"take that away by nft: %w", family, c.Name, table, why)
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
		return "", why // it was something else
	}
	return text.String(), nil
}
