package ruleset

import (
	"fmt"
	"net/netip"
	"strconv"
)

// Target is what a rule does to a packet, in iptables' terms.
type Target interface {
	args() []string // as iptables-save prints it, from -j on
	apply(h *hop) action
}

// action is what becomes of the walk through a chain after a target.
type action int

const (
	actionContinue action = iota // the next rule
	actionReturn                 // back to the calling chain
	actionAccept                 // done with this table at this hook
	actionStop                   // the packet's fate is sealed
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

// Jump goes through another chain and comes back.
type Jump struct{ Chain string }

// Redirect sends a connection to a port of this host (nat).
type Redirect struct{ Port uint16 }

// Nowhere gives a packet a destination that no host has and the kernel drops it
// for, 0.0.0.0 (nat, IPv4). iptables refuses DROP in nat, which alone sees no
// more of a connection than its first packet.
type Nowhere struct{}

// TProxy gives a packet to a local socket listening on Port and leaves its
// addresses alone (mangle PREROUTING); it sets the bits of Mask to Mark.
type TProxy struct {
	Port       uint16
	Address    netip.Addr // unspecified for any
	Mark, Mask uint32
}

// SetMark sets the packet mark, or with Connection the mark of its conntrack
// entry: the bits of Mask are cleared, then Value is xor-ed in.
type SetMark struct {
	Connection  bool
	Value, Mask uint32
}

// SaveMark copies the packet mark to the conntrack entry.
type SaveMark struct{}

// RestoreMark copies the mark of the conntrack entry to the packet.
type RestoreMark struct{}

// ConntrackZone puts a packet's connection into a zone of conntrack of its own
// (raw).
type ConntrackZone struct{ Zone uint16 }

// OpaqueTarget is a target that this package does not understand; what it
// does to a packet is not known.
type OpaqueTarget struct{ Args []string }

func (v Verdict) args() []string { return []string{"-j", string(v)} }

func (r Reject) args() []string {
	if r.With == "" {
		return []string{"-j", "REJECT"}
	}
	return []string{"-j", "REJECT", "--reject-with", r.With}
}

func (j Jump) args() []string { return []string{"-j", j.Chain} }

func (r Redirect) args() []string {
	return []string{"-j", "REDIRECT", "--to-ports", strconv.Itoa(int(r.Port))}
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

func (SaveMark) args() []string {
	return []string{"-j", "CONNMARK", "--save-mark", "--nfmask", "0xffffffff", "--ctmask", "0xffffffff"}
}

func (RestoreMark) args() []string {
	return []string{"-j", "CONNMARK", "--restore-mark", "--nfmask", "0xffffffff", "--ctmask", "0xffffffff"}
}

func (z ConntrackZone) args() []string {
	return []string{"-j", "CT", "--zone", strconv.Itoa(int(z.Zone))}
}

func (t OpaqueTarget) args() []string { return t.Args }
