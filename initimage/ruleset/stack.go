package ruleset

import (
	"cmp"
	"slices"
	"strings"
)

// Base is where the kernel calls a chain of a native nft table. The chains of
// iptables' tables have none: their names say it.
type Base struct {
	Hook     string // as iptables names it
	Priority int
	NAT      bool // of type nat: it sees the first packet of a connection
	Route    bool // of type route: it routes a packet of this host again
}

// Stack holds the netfilter rules of all parties in a namespace, in the order in
// which the kernel goes through them. It walks one packet at a time.
type Stack struct {
	routing Routing
	hooks   map[string][]base
	current traversal // of the packet that is walked
	// decided says of rules whose matches are not understood whether they accept
	// the packet; see Follow.
	decided   map[*Rule]bool
	following bool    // what is passed is recorded, too
	survey    *Survey // is told what walks compare, if there is one
}

// base is a chain that the kernel calls.
type base struct {
	table    string
	foreign  bool              // the table cannot hold rules of Shunt
	chains   map[string]*Chain // of its table
	chain    *Chain
	priority int
	nat      bool
	rank     int // among nat chains
	reroutes bool
}

// Priorities of the kernel (linux/netfilter_ipv4.h). conntrack's nat calls all nat
// chains of a hook and has a priority of its own; theirs only order them among each
// other.
const (
	priorityConntrack = -200
	priorityDstNAT    = -100
	prioritySrcNAT    = 100
)

var tablePriority = map[string]int{"raw": -300, "mangle": -150, "filter": 0, "security": 50}

// NewStack puts rule sets of one family together. The older of two chains of the
// same priority comes first, but which is older cannot be seen. NewStack takes them
// in the order of the rule sets.
func NewStack(routing Routing, sets ...RuleSet) *Stack {
	stack := &Stack{routing: routing, hooks: map[string][]base{}}
	for _, set := range sets {
		for i := range set.Tables {
			stack.add(set.Party, &set.Tables[i])
		}
	}
	for _, bases := range stack.hooks {
		slices.SortStableFunc(bases, func(a, b base) int {
			return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.rank, b.rank))
		})
	}
	return stack
}

func (s *Stack) add(party string, table *Table) {
	name := tableName(party, table.Name)
	chains := make(map[string]*Chain, len(table.Chains))
	for i := range table.Chains {
		chains[table.Chains[i].Name] = &table.Chains[i]
	}
	for i := range table.Chains {
		chain := &table.Chains[i]
		place := chain.Base
		if place == nil {
			if !chain.Builtin() {
				continue
			}
			place = &Base{Hook: chain.Name, Priority: tablePriority[table.Name], NAT: table.Name == "nat", Route: table.Name == "mangle"}
			if place.NAT {
				place.Priority = natPriority(chain.Name)
			}
		}
		b := base{
			table: name, foreign: party != "", chains: chains, chain: chain,
			priority: place.Priority, nat: place.NAT, reroutes: place.NAT || place.Route,
		}
		if b.nat {
			b.rank, b.priority = place.Priority, natPriority(place.Hook)
		}
		s.hooks[place.Hook] = append(s.hooks[place.Hook], b)
	}
}

// tableName tells the tables of all parties apart.
func tableName(party, table string) string { return strings.TrimSpace(party + " " + table) }

func natPriority(hook string) int {
	if hook == "PREROUTING" || hook == "OUTPUT" {
		return priorityDstNAT
	}
	return prioritySrcNAT
}
