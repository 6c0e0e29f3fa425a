package ruleset

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Defaults of a packet's text: the ids of an ordinary user, and the interface of a
// pod.
const (
	defaultID        = 1000
	defaultInterface = "eth0"
)

// ParsePacket reads a packet from text: its direction, attributes, protocol and
// destination.
//
//	out uid=1000 gid=1000 tcp 10.0.0.9:80
//	in from=10.0.0.9 if=eth0 tcp [fd00::1]:8080
//
// The attributes and their defaults: uid and gid (1000) of the sending process,
// mark (0) of its socket, connmark (0), from (chosen by the host), if (eth0 for a
// packet that comes in, none for one of this host; lo means that its socket is
// bound to lo), state (NEW).
func ParsePacket(text string) (Packet, error) {
	words := strings.Fields(text)
	if len(words) < 3 {
		return Packet{}, fmt.Errorf("packet %q: a direction, a protocol and a destination are needed", text)
	}
	attributes, protocol, destination := words[1:len(words)-2], words[len(words)-2], words[len(words)-1]
	packet := Packet{Direction: Direction(words[0]), Protocol: protocol, UID: defaultID, GID: defaultID, State: New}
	if packet.Direction != In && packet.Direction != Out {
		return Packet{}, fmt.Errorf("packet %q: direction %q; accepted: in, out", text, words[0])
	}
	if packet.Direction == In {
		packet.Interface = defaultInterface
	}
	if protocol != "tcp" && protocol != "udp" {
		return Packet{}, fmt.Errorf("packet %q: protocol %q; accepted: tcp, udp", text, protocol)
	}
	to, err := netip.ParseAddrPort(destination)
	if err != nil {
		return Packet{}, fmt.Errorf("packet %q: destination %q; accepted: ADDRESS:PORT, [ADDRESS]:PORT", text, destination)
	}
	packet.Dst, packet.DstPort, packet.Family = to.Addr(), to.Port(), IPv4
	if !packet.Dst.Is4() {
		packet.Family = IPv6
	}
	for _, attribute := range attributes {
		if err := packet.setAttribute(attribute); err != nil {
			return Packet{}, fmt.Errorf("packet %q: %w", text, err)
		}
	}
	if packet.Direction == Out && packet.Interface != "" && packet.Interface != loopbackName {
		return Packet{}, fmt.Errorf("packet %q: interface %q of an outbound packet; accepted: %s", text, packet.Interface, loopbackName)
	}
	return packet, nil
}

// setAttribute reads one key=value attribute.
func (p *Packet) setAttribute(attribute string) error {
	key, value, _ := strings.Cut(attribute, "=")
	var err error
	switch key {
	case "uid":
		p.UID, err = parseUint32(value)
	case "gid":
		p.GID, err = parseUint32(value)
	case "mark":
		p.Mark, err = parseUint32(value)
	case "connmark":
		p.ConnMark, err = parseUint32(value)
	case "from":
		p.Src, err = netip.ParseAddr(value)
	case "if":
		p.Interface = value
	case "state":
		p.State = State(strings.ToUpper(value))
		if !slices.Contains(states, p.State) {
			err = fmt.Errorf("accepted: %v", states)
		}
	default:
		err = fmt.Errorf("accepted: uid, gid, mark, connmark, from, if, state")
	}
	if err != nil {
		return fmt.Errorf("attribute %q: %w", attribute, err)
	}
	return nil
}

func parseUint32(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 0, 32)
	return uint32(n), err
}

// ParseOutcome reads an outcome as Outcome.String prints it.
func ParseOutcome(text string) (Outcome, error) {
	fate, port, hasPort := strings.Cut(strings.TrimSpace(text), " ")
	outcome := Outcome{Fate: Fate(fate)}
	switch outcome.Fate {
	case Redirected, TProxied:
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return Outcome{}, fmt.Errorf("outcome %q: %s needs a port", text, fate)
		}
		outcome.Port = uint16(n)
		return outcome, nil
	case Direct, Local, Dropped, Rejected, Unknown:
		if !hasPort {
			return outcome, nil
		}
	}
	return Outcome{}, fmt.Errorf("outcome %q; accepted: direct, redirect PORT, tproxy PORT, local, drop, reject, unknown", text)
}

// String prints the packet as ParsePacket reads it.
func (p Packet) String() string {
	words := []string{string(p.Direction)}
	number := func(key string, n uint32, omit uint32) {
		if n != omit {
			words = append(words, key+"="+strconv.FormatUint(uint64(n), 10))
		}
	}
	if p.Direction == Out {
		number("uid", p.UID, defaultID)
		number("gid", p.GID, defaultID)
	}
	number("mark", p.Mark, 0)
	number("connmark", p.ConnMark, 0)
	if p.Src.IsValid() {
		words = append(words, "from="+p.Src.String())
	}
	if p.Interface != "" && p.Interface != defaultInterface {
		words = append(words, "if="+p.Interface)
	}
	if p.State != New && p.State != "" {
		words = append(words, "state="+strings.ToLower(string(p.State)))
	}
	return strings.Join(append(words, p.Protocol, netip.AddrPortFrom(p.Dst, p.DstPort).String()), " ")
}
