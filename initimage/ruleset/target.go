package ruleset

import (
	"fmt"
	"net/netip"
	"strconv"
)

// Target is what a rule does to a packet, in iptables' terms.
type Target interface {
	args() []string // as iptables-save prints it, from -j on
	apply(h *traversal) action
}

// action is how the walk through a chain goes on after a target.
type action int

const (
	actionContinue action = iota // the next rule
	actionNext                   // the next rule, without the rest of this one
	actionReturn                 // back to the calling chain
	actionAccept                 // done with this table at this hook
	actionStop                   // the packet's fate is final
	actionJump                   // into another chain
)

// Verdict is a target that ends a chain: ACCEPT, DROP, RETURN.
type Verdict string

// The verdicts.
const (
	Accept Verdict = "ACCEPT"
	Drop   Verdict = "DROP"
	Return Verdict = "RETURN"
)

// Reject drops a packet and tells its sender.
type Reject struct {
	With string // kind of answer, as iptables names it; "" for its default
}

// Jump goes through another chain and comes back. With Goto, the end of that chain
// is the end of this one too.
type Jump struct {
	Chain string
	Goto  bool
}

// Redirect sends a connection to a port of this host (nat); 0 keeps the port.
type Redirect struct{ Port uint16 }

// DNAT gives a connection another destination (nat). It keeps the address if
// Address is not valid, and the port if Port is 0.
type DNAT struct {
	Address netip.Addr
	Port    uint16
}

// Nowhere gives a packet the destination 0.0.0.0, for which the kernel drops it
// (nat, IPv4). iptables allows no DROP in nat, the only table that sees just the
// first packet of a connection.
type Nowhere struct{}

// TProxy gives a packet to a local socket that listens on Port, and keeps its
// addresses (mangle PREROUTING). It sets the bits of Mask to Mark.
type TProxy struct {
	Port       uint16
	Address    netip.Addr // unspecified for any
	Mark, Mask uint32
}

// SetMark sets the packet mark, or with Connection the mark of its conntrack entry:
// it clears the bits of Mask, then xors Value in.
type SetMark struct {
	Connection  bool
	Value, Mask uint32
}

// SaveMark copies the packet mark to the conntrack entry.
type SaveMark struct{ Masks }

// RestoreMark copies the mark of the conntrack entry to the packet.
type RestoreMark struct{ Masks }

// Masks are the bits that a copy of a mark leaves alone: of the packet's mark and
// of its conntrack entry's. The zero value copies all.
type Masks struct{ SparePacket, SpareConnection uint32 }

func (m Masks) packet() uint32     { return ^m.SparePacket }
func (m Masks) connection() uint32 { return ^m.SpareConnection }

// NoTrack keeps a packet from conntrack, and so from nat (raw).
type NoTrack struct{}

// Sequence is several targets that a rule applies one after the other, as rules of
// nft do.
type Sequence []Target

// ConntrackZone puts a packet's connection into its own zone of conntrack (raw).
type ConntrackZone struct{ Zone uint16 }

// OpaqueTarget is a target that this package does not understand. What it does to a
// packet is not known.
type OpaqueTarget struct{ Args []string }

func (v Verdict) args() []string { return []string{"-j", string(v)} }

func (r Reject) args() []string {
	if r.With == "" {
		return []string{"-j", "REJECT"}
	}
	return []string{"-j", "REJECT", "--reject-with", r.With}
}

func (j Jump) args() []string {
	if j.Goto {
		return []string{"-g", j.Chain}
	}
	return []string{"-j", j.Chain}
}

func (r Redirect) args() []string {
	if r.Port == 0 {
		return []string{"-j", "REDIRECT"}
	}
	return []string{"-j", "REDIRECT", "--to-ports", strconv.Itoa(int(r.Port))}
}

func (d DNAT) args() []string {
	to := ":" + strconv.Itoa(int(d.Port))
	switch {
	case d.Address.IsValid() && d.Port != 0:
		to = netip.AddrPortFrom(d.Address, d.Port).String()
	case d.Address.IsValid():
		to = d.Address.String()
	}
	return []string{"-j", "DNAT", "--to-destination", to}
}

func (Nowhere) args() []string {
	return []string{"-j", "DNAT", "--to-destination", IPv4.unspecified().String()}
}

func (t TProxy) args() []string {
	return []string{"-j", "TPROXY", "--on-port", strconv.Itoa(int(t.Port)), "--on-ip", t.Address.String(),
		"--tproxy-mark", fmt.Sprintf("%#x/%#x", t.Mark, t.Mask)}
}

func (s SetMark) args() []string {
	target := "MARK"
	if s.Connection {
		target = "CONNMARK"
	}
	return []string{"-j", target, "--set-xmark", fmt.Sprintf("%#x/%#x", s.Value, s.Mask)}
}

func (s SaveMark) args() []string { return s.Masks.args("--save-mark") }

func (r RestoreMark) args() []string { return r.Masks.args("--restore-mark") }

func (m Masks) args(what string) []string {
	return []string{"-j", "CONNMARK", what, "--nfmask", fmt.Sprintf("%#x", m.packet()), "--ctmask", fmt.Sprintf("%#x", m.connection())}
}

func (NoTrack) args() []string { return []string{"-j", "CT", "--notrack"} }

func (all Sequence) args() []string {
	var words []string
	for _, t := range all {
		words = append(words, t.args()...)
	}
	return words
}

func (z ConntrackZone) args() []string {
	return []string{"-j", "CT", "--zone", strconv.Itoa(int(z.Zone))}
}

func (t OpaqueTarget) args() []string { return t.Args }
