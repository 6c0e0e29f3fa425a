package ruleset

import (
	"cmp"
	"slices"
	"strings"
)

// Base says where the kernel calls a chain of a native nft table. The chains of
// iptables' tables have none: their names say it.
type Base struct {
	Hook     string // by iptables' name of it
	Priority int
	NAT      bool // of type nat: it sees the first packet of a connection
	Route    bool // of type route: it routes a packet of this host anew
}

// Stack is the netfilter rules of all parties in a namespace, in the order in
// which the kernel goes through them. One packet at a time can be walked.
type Stack struct {
	routing Routing
	hooks   map[string][]base
	hop     hop // of the packet
}

// base is a chain that the kernel calls.
type base struct {
	table    string
	foreign  bool              // the table can hold nothing of Shunt's
	chains   map[string]*Chain // of its table
	chain    *Chain
	priority int
	nat      bool
	rank     int // among nat chains
	reroutes bool
}

// Priorities of the kernel (linux/netfilter_ipv4.h). All nat chains of a hook
// are called by conntrack's nat, which has a place of its own; theirs orders
// them among each other.
const (
	priorityConntrack = -200
	priorityDstNAT    = -100
	prioritySrcNAT    = 100
)

var tablePriority = map[string]int{"raw": -300, "mangle": -150, "filter": 0, "security": 50}

// NewStack puts rule sets of one family together. Which of two chains of the
// same priority comes first depends on which has been there longer, and cannot
// be seen: here it is that of the earlier rule set.
func NewStack(routing Routing, sets ...RuleSet) *Stack {
	s := &Stack{routing: routing, hooks: map[string][]base{}}
	for _, rs := range sets {
		for i := range rs.Tables {
			s.add(rs.Party, &rs.Tables[i])
		}
	}
	for _, bases := range s.hooks {
		slices.SortStableFunc(bases, func(a, b base) int {
			return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.rank, b.rank))
		})
	}
	return s
}

func (s *Stack) add(party string, t *Table) {
	name := strings.TrimSpace(party + " " + t.Name)
	chains := make(map[string]*Chain, len(t.Chains))
	for i := range t.Chains {
		chains[t.Chains[i].Name] = &t.Chains[i]
	}
	for i := range t.Chains {
		c := &t.Chains[i]
		at := c.Base
		if at == nil {
			if !c.Builtin() {
				continue
			}
			at = &Base{Hook: c.Name, Priority: tablePriority[t.Name], NAT: t.Name == "nat", Route: t.Name == "mangle"}
			if at.NAT {
				at.Priority = natPriority(c.Name)
			}
		}
		b := base{
			table: name, foreign: party != "", chains: chains, chain: c,
			priority: at.Priority, nat: at.NAT, reroutes: at.NAT || at.Route,
		}
		if b.nat {
			b.rank, b.priority = at.Priority, natPriority(at.Hook)
		}
		s.hooks[at.Hook] = append(s.hooks[at.Hook], b)
	}
}

func natPriority(hook string) int {
	if hook == "PREROUTING" || hook == "OUTPUT" {
		return priorityDstNAT
	}
	return prioritySrcNAT
}
