package ruleset

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// Match is one condition of a rule, in iptables' terms.
type Match interface {
	rank() int                 // place in the canonical order of a rule's matches
	args() []string            // as iptables-save prints it
	matches(h *traversal) bool // whether it accepts the packet where that is now
}

// Source matches the source address (-s).
type Source struct {
	Prefix netip.Prefix
	Not    bool
}

// Destination matches the destination address (-d).
type Destination struct {
	Prefix netip.Prefix
	Not    bool
}

// InInterface matches the interface that a packet came in by (-i). A + at the end
// of the name stands for any ending.
type InInterface struct {
	Name string
	Not  bool
}

// OutInterface matches the interface that a packet is about to leave by (-o).
type OutInterface struct {
	Name string
	Not  bool
}

// Protocol matches the transport protocol (-p), "tcp" or "udp".
type Protocol struct {
	Name string
	Not  bool
}

// Ports matches the destination port, or with Source the source port. Ranges must
// be set, and the protocol must be matched too. More than one range uses the
// multiport extension, which holds 15 ports and counts a range as two
// (iptables-extensions(8)).
type Ports struct {
	Protocol string // "tcp" or "udp", whose extension holds a single range
	Source   bool
	Ranges   interception.PortRanges
	Not      bool
}

// SYN matches the segment that opens a TCP connection: SYN is set; ACK, FIN and RST
// are not (--syn).
type SYN struct{ Not bool }

// Owner matches locally made packets by the user or group of the process that owns
// the socket.
type Owner struct {
	Group bool // gid rather than uid
	First uint32
	Last  uint32
	Not   bool
}

// Mark matches the packet mark, or with Connection the mark of its conntrack entry.
// The masked mark must be Value.
type Mark struct {
	Connection  bool
	Value, Mask uint32
	Not         bool
}

// SocketMark matches the mark of the socket that awaits a packet which came in, as nft
// does by "socket mark". iptables has no such match. A packet that no socket but a
// listener awaits does not match.
type SocketMark struct{ Value, Mask uint32 }

// Conntrack matches the state of the packet's connection.
type Conntrack struct {
	States []State // one of them
	Not    bool
}

// AddressType matches by what the routing table says of an address. Only LOCAL, an
// address of this host, is known here.
type AddressType struct {
	Destination bool // the destination rather than the source
	Not         bool
}

// OpaqueMatch is a match that this package does not understand. Whether it accepts
// a packet is not known.
type OpaqueMatch struct{ Args []string }

// Canonical order: first what iptables-save always prints first, then the
// extensions from the cheapest to the most expensive.
const (
	rankSource = iota
	rankDestination
	rankIn
	rankOut
	rankProtocol
	rankPorts
	rankSYN
	rankMark
	rankSocketMark
	rankOwner
	rankAddressType
	rankConntrack
	rankOpaque
)

func (Source) rank() int       { return rankSource }
func (Destination) rank() int  { return rankDestination }
func (InInterface) rank() int  { return rankIn }
func (OutInterface) rank() int { return rankOut }
func (Protocol) rank() int     { return rankProtocol }
func (Ports) rank() int        { return rankPorts }
func (SYN) rank() int          { return rankSYN }
func (Mark) rank() int         { return rankMark }
func (SocketMark) rank() int   { return rankSocketMark }
func (Owner) rank() int        { return rankOwner }
func (AddressType) rank() int  { return rankAddressType }
func (Conntrack) rank() int    { return rankConntrack }
func (OpaqueMatch) rank() int  { return rankOpaque }

// negate puts an exclamation mark before an option.
func negate(negated bool, args ...string) []string {
	if negated {
		return append([]string{"!"}, args...)
	}
	return args
}

// extension names the extension that an option belongs to.
func extension(module string, option []string) []string {
	return append([]string{"-m", module}, option...)
}

func (m Source) args() []string       { return negate(m.Not, "-s", m.Prefix.String()) }
func (m Destination) args() []string  { return negate(m.Not, "-d", m.Prefix.String()) }
func (m InInterface) args() []string  { return negate(m.Not, "-i", m.Name) }
func (m OutInterface) args() []string { return negate(m.Not, "-o", m.Name) }
func (m Protocol) args() []string     { return negate(m.Not, "-p", m.Name) }

func (m Ports) args() []string {
	words := make([]string, len(m.Ranges))
	for i, r := range m.Ranges {
		words[i] = strconv.Itoa(int(r.First))
		if r.First != r.Last {
			words[i] += ":" + strconv.Itoa(int(r.Last))
		}
	}
	option := "--dport"
	if m.Source {
		option = "--sport"
	}
	if len(words) == 1 && m.Protocol == "" {
		return negate(m.Not, option, words[0])
	}
	if len(words) == 1 {
		return extension(m.Protocol, negate(m.Not, option, words[0]))
	}
	return extension("multiport", negate(m.Not, option+"s", strings.Join(words, ",")))
}

func (m SYN) args() []string {
	return extension("tcp", negate(m.Not, "--tcp-flags", "FIN,SYN,RST,ACK", "SYN"))
}

func (m Owner) args() []string {
	option, ids := "--uid-owner", strconv.FormatUint(uint64(m.First), 10)
	if m.Group {
		option = "--gid-owner"
	}
	if m.Last != m.First {
		ids += "-" + strconv.FormatUint(uint64(m.Last), 10)
	}
	return extension("owner", negate(m.Not, option, ids))
}

func (m Mark) args() []string {
	module := "mark"
	if m.Connection {
		module = "connmark"
	}
	return extension(module, negate(m.Not, "--mark", formatMark(m.Value, m.Mask)))
}

func (m SocketMark) args() []string {
	return extension("socket", []string{"--mark", formatMark(m.Value, m.Mask)})
}

// formatMark omits the mask if it compares all bits, as iptables does.
func formatMark(value, mask uint32) string {
	if mask == allBits {
		return fmt.Sprintf("%#x", value)
	}
	return fmt.Sprintf("%#x/%#x", value, mask)
}

const allBits = 1<<32 - 1

func (m Conntrack) args() []string {
	words := make([]string, len(m.States))
	for i, s := range m.States {
		words[i] = string(s)
	}
	return extension("conntrack", negate(m.Not, "--ctstate", strings.Join(words, ",")))
}

func (m AddressType) args() []string {
	option := "--src-type"
	if m.Destination {
		option = "--dst-type"
	}
	return extension("addrtype", negate(m.Not, option, "LOCAL"))
}

func (m OpaqueMatch) args() []string { return m.Args }
