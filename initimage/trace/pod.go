package trace

import (
	"net/netip"
	"slices"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Pod is all that decides which way a packet goes in one pod.
type Pod struct {
	Name  string // of the source, for people: "Deployment/shop", "/run/netns/x", "shunt-init's flags"
	Sides []Side // one a family, IPv4 first
	Proxy Proxy
	// Built is what the rules were built from; nil if they were read somewhere.
	Built *interception.Spec `json:"-"`
	// Drift is how the rules of Shunt in a running pod differ from those that it
	// should have, one a line.
	Drift []string
	// Live is a connection that was made in the pod; nil for none.
	Live *Live
}

// Side is one address family of a pod.
type Side struct {
	Family  ruleset.Family
	Host    ruleset.Host
	Sets    []ruleset.RuleSet // of all parties, in the order in which they were read; Shunt's own has Party ""
	Routing ruleset.Routing   // that walks go by; the Routing of the Sets is not looked at
	// Unread is what could not be read of the source, one sentence each. A walk
	// does not know whether it would have gone another way for that.
	Unread []string
	// Invented means that the source has no real pod, and that the addresses of
	// Host are made up.
	Invented bool
}

// Side returns the pod's side of a family, or nil.
func (p *Pod) Side(family ruleset.Family) *Side {
	for i := range p.Sides {
		if p.Sides[i].Family == family {
			return &p.Sides[i]
		}
	}
	return nil
}

// Walked returns the host as walks need it: with the addresses of lo that the
// routing names, such as ::6, behind its own.
func (s *Side) Walked() ruleset.Host {
	host := s.Host
	host.Addresses = slices.Clone(host.Addresses)
	for _, prefix := range s.Routing.Addresses {
		host.Addresses = append(host.Addresses, prefix.Addr())
	}
	return host
}

// Address returns the side's own first address; see ruleset.Host.
func (s *Side) Address() netip.Addr {
	for _, own := range s.Host.Addresses {
		if s.Family.Of(own) {
			return own
		}
	}
	return netip.Addr{}
}

// local reports whether an address is one of the pod's.
func (s *Side) local(addr netip.Addr) bool {
	return addr.IsLoopback() || slices.Contains(s.Host.Addresses, addr) ||
		slices.ContainsFunc(s.Routing.Addresses, func(p netip.Prefix) bool { return p.Addr() == addr })
}

// Proxy is what the proxy does with the connections that it gets.
type Proxy struct {
	UID, GID uint32
	// Mark is that of its sockets to the app; 0 for none. MarkAll means that all its
	// sockets have it, as in ambient, where the rules know the proxy by it.
	Mark    uint32
	MarkAll bool
	// OwnMark is that of its sockets to elsewhere, where the rules know them by it
	// without conntrack; 0 for none.
	OwnMark uint32
	// Inbound, Outbound and DNS are the ports that the rules send connections to; 0
	// for none. Where Inbound and Outbound are one port, as in Istio's system of
	// 2017, the proxy connects to the app over loopback.
	Inbound, Outbound, DNS uint16
	// Transparent means that its sockets to the app have the client's address. Those
	// of other proxies have 127.0.0.6 or ::6.
	Transparent bool
}

// ownMark is the mark of the proxy's connections that are not to the app.
func (p Proxy) ownMark() uint32 {
	if p.MarkAll {
		return p.Mark
	}
	return p.OwnMark
}

// ports are those that the rules send connections to.
func (p Proxy) ports() []uint16 {
	return slices.DeleteFunc([]uint16{p.Inbound, p.Outbound, p.DNS}, func(port uint16) bool { return port == 0 })
}

// listens reports whether a port is one that the rules send connections to.
func (p Proxy) listens(port uint16) bool {
	return port != 0 && (port == p.Inbound || port == p.Outbound || port == p.DNS)
}

// Actor is who opens a connection.
type Actor string

// The actors.
const (
	App      Actor = "app"
	TheProxy Actor = "proxy"
	Outside  Actor = "outside"
)

// Connection is the question.
type Connection struct {
	From   Actor
	Packet ruleset.Packet // the first packet of the connection
	// HopPort is the source port of the proxy's own connections; 0 for none, which no
	// rule is to name.
	HopPort uint16
}

// Journey is the answer.
type Journey struct {
	Connection Connection
	// Legs are the packets that open the connections of the journey, in the order in
	// which they are sent, and then those that answer them.
	Legs []Leg
	End  End
	// Fork is where the journey may go on in two ways, because a match is not
	// understood; nil if everything is known. The Legs end with the one that forks.
	Fork *Fork
	// Unread is what could not be read of the side's source.
	Unread []string
}

// Leg is one packet's way through the pod.
type Leg struct {
	Title   string // "A client connects to the app"
	From    Actor
	Answer  bool           // it answers the packet of another leg
	Packet  ruleset.Packet // as it starts; its source is valid
	Path    ruleset.Path   // Path.Hooks is the way, in the kernel's order
	Outcome string         // in plain English
	// Decides is the rule that decides where the packet goes; nil if none does.
	Decides *ruleset.Step

	sent, back ruleset.Flow // Packet, and the packet that answers it
}

// End is where a journey ends.
type End struct {
	Kind    EndKind
	Proxied bool       // it went through the proxy
	Sees    netip.Addr // the client's address as the process sees it that the bytes get to; not valid if it sees none
	Text    string     // in plain English
}

// EndKind is how a journey ends.
type EndKind string

// The ends of journeys.
const (
	EndApp     EndKind = "app"     // a process of the pod gets it
	EndOutside EndKind = "outside" // it leaves the pod
	EndProxy   EndKind = "proxy"   // the proxy gets it and does not pass it on
	EndBlocked EndKind = "blocked" // it is dropped or rejected
	EndLoop    EndKind = "loop"    // the proxy's own connection comes back to the proxy
	EndLost    EndKind = "lost"    // an answer does not come back
	EndUnknown EndKind = "unknown"
)

// Fork is a rule of which it is not known whether it matches, and both journeys.
type Fork struct {
	Rule       ruleset.Step
	If, Unless Journey // it matches; it does not
}
