package ruleset

import (
	"net/netip"
	"slices"
)

// Direction is where a packet enters the host's network stack.
type Direction string

// The directions.
const (
	In  Direction = "in"  // arrives on an interface
	Out Direction = "out" // made by a process of this host
)

// State is conntrack's state of the packet's connection.
type State string

// The states, by conntrack's names.
const (
	Invalid     State = "INVALID"
	New         State = "NEW"
	Related     State = "RELATED"
	Established State = "ESTABLISHED"
	Untracked   State = "UNTRACKED"
)

var states = []State{Invalid, New, Related, Established, Untracked}

// Packet is one packet as it enters the rules.
type Packet struct {
	Direction        Direction
	Family           Family
	Protocol         string // "tcp" or "udp"
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	UID, GID         uint32 // of the sending process (Out)
	Mark             uint32 // of the sending socket (Out)
	ConnMark         uint32 // of its conntrack entry
	Interface        string // by which it arrives (In), or that its socket is bound to (Out): "" or lo
	State            State
	// Midstream means that the packet is not the first of its connection, but
	// conntrack takes it for that: it has not seen the earlier ones.
	Midstream bool
	// Answer means that a socket of this host awaits the packet: it answers a
	// connection that was opened here.
	Answer     bool
	SocketMark uint32 // of that socket
}

// Host is what a walk needs to know of the host besides its rules.
type Host struct {
	Addresses []netip.Addr // its own, without those of lo
	Uplink    string       // the interface that everything else is behind
	// Interfaces holds all of them but lo.
	Interfaces []Interface
	// NoLocalnet means that it drops what comes in for 127.0.0.0/8, as a kernel
	// does unless route_localnet is set.
	NoLocalnet bool
}

// Interface is an interface of a host, and its addresses.
type Interface struct {
	Name      string
	Addresses []netip.Addr
}

// Behind returns the host with everything else behind one of its interfaces, whose
// addresses come first.
func (h *Host) Behind(name string) Host {
	at := Host{Uplink: name, Interfaces: h.Interfaces, NoLocalnet: h.NoLocalnet}
	for _, i := range h.Interfaces {
		if i.Name == name {
			at.Addresses = slices.Clone(i.Addresses)
		}
	}
	for _, own := range h.Addresses {
		at.Addresses = union(at.Addresses, own)
	}
	return at
}

// local reports whether addr is one of the host's own addresses.
func (h *Host) local(addr netip.Addr) bool {
	if isLoopback(addr) {
		return true
	}
	for _, own := range h.Addresses {
		if own == addr {
			return true
		}
	}
	return false
}

// isLoopback reports whether an address is loopback to the kernel, which to it no
// IPv4 address is that is written as an IPv6 one.
func isLoopback(addr netip.Addr) bool { return addr.IsLoopback() && !addr.Is4In6() }

// ThisHost reports whether an address means whichever host it is used on. Those are
// loopback, the unspecified address, which connect(2) takes for it, and every IPv4
// address written as an IPv6 one, which a socket of both families takes for the
// IPv4 address.
func ThisHost(addr netip.Addr) bool {
	return addr.IsLoopback() || addr.IsUnspecified() || addr.Is4In6()
}

// address returns the host's first own address of a family. It stands for the one
// that the kernel would choose.
func (h *Host) address(f Family) netip.Addr {
	for _, own := range h.Addresses {
		if f.Of(own) {
			return own
		}
	}
	return f.loopback()
}

// addressOf returns the first address of one interface, or else of the host.
func (h *Host) addressOf(name string, f Family) netip.Addr {
	for _, i := range h.Interfaces {
		if at := slices.IndexFunc(i.Addresses, f.Of); i.Name == name && at >= 0 {
			return i.Addresses[at]
		}
	}
	return h.address(f)
}

// Fate is where a packet ends.
type Fate string

// The fates.
const (
	Direct     Fate = "direct"   // reaches its destination unchanged
	Redirected Fate = "redirect" // reaches a port of this host, its destination rewritten
	TProxied   Fate = "tproxy"   // reaches a listener of this host, its destination kept
	Rewritten  Fate = "dnat"     // leaves for another destination than it was sent to
	Local      Fate = "local"    // reaches a socket of this host, though its destination is not an address of this host
	Dropped    Fate = "drop"
	Rejected   Fate = "reject"
	Unknown    Fate = "unknown" // a rule that is not understood may decide
)

// Outcome is a fate and, for Redirected, TProxied and Rewritten, the port.
type Outcome struct {
	Fate Fate
	Port uint16
}
