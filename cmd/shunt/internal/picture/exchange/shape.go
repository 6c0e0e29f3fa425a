package exchange

import (
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// Shape is what the page draws of one family of a pod.
type Shape struct {
	Family   int                   `json:"family"`
	Host     ShapeHost             `json:"host"`
	Hooks    map[string][]BaseName `json:"hooks"` // in the kernel's order
	Tables   map[string]ShapeTable `json:"tables"`
	Order    []string              `json:"order"` // of the tables
	Routing  []string              `json:"routing"`
	Unread   []string              `json:"unread"`
	Invented bool                  `json:"invented"`
}

// ShapeHost is the pod as a host.
type ShapeHost struct {
	Addresses []string `json:"addresses"`
	Uplink    string   `json:"uplink"`
}

// BaseName names a chain that the kernel calls.
type BaseName struct {
	Table string `json:"table"`
	Chain string `json:"chain"`
}

// ShapeTable holds chains by name.
type ShapeTable struct {
	Order  []string              `json:"order"`
	Chains map[string]ShapeChain `json:"chains"`
}

// ShapeChain is a chain with its rules as text.
type ShapeChain struct {
	Policy string      `json:"policy,omitempty"`
	Rules  []ShapeRule `json:"rules"`
}

// ShapeRule is a rule as text.
type ShapeRule struct {
	Text string `json:"text"`          // without its comment
	Why  string `json:"why,omitempty"` // its comment
	To   string `json:"to,omitempty"`  // the chain that it jumps to
	// Packets are those that the rule has counted, where that is known.
	Packets *uint64 `json:"packets,omitempty"`
}

// shapeOf returns what the page draws of a side.
func shapeOf(s trace.Side) Shape {
	shape := Shape{
		Family: int(s.Family), Hooks: map[string][]BaseName{}, Tables: map[string]ShapeTable{},
		Host: ShapeHost{Uplink: s.Host.Uplink, Addresses: []string{}}, Routing: []string{}, Unread: s.Unread, Invented: s.Invented,
	}
	for _, own := range s.Host.Addresses {
		if s.Family.Of(own) {
			shape.Host.Addresses = append(shape.Host.Addresses, own.String())
		}
	}
	stack := ruleset.NewStack(s.Routing, s.Sets...)
	for _, hook := range ruleset.Hooks() {
		for _, base := range stack.Bases(hook) {
			shape.Hooks[hook] = append(shape.Hooks[hook], BaseName(base))
		}
	}
	for _, rs := range s.Sets {
		for _, t := range rs.Tables {
			name := rs.TableName(t)
			shape.Order = append(shape.Order, name)
			shape.Tables[name] = shapeTable(t)
		}
	}
	shape.Routing = append(shape.Routing, s.Routing.Lines(s.Family)...)
	return shape
}

func shapeTable(t ruleset.Table) ShapeTable {
	shape := ShapeTable{Chains: map[string]ShapeChain{}}
	for _, c := range t.Chains {
		rules := []ShapeRule{}
		for _, r := range c.Rules {
			rules = append(rules, shapeRule(r))
		}
		shape.Order = append(shape.Order, c.Name)
		shape.Chains[c.Name] = ShapeChain{Policy: c.Policy, Rules: rules}
	}
	return shape
}

func shapeRule(r ruleset.Rule) ShapeRule {
	bare := r
	bare.Comment = ""
	return ShapeRule{Text: bare.String(), Why: r.Comment, To: r.JumpsTo(), Packets: r.Packets}
}
