package kernel

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// numbers are the ends of a range of a property that is a number.
func (o operand) numbers(e setElement) (from, to uint32) {
	last := e.last
	if last == nil {
		last = e.first
	}
	switch o.property {
	case propertySourcePort, propertyDestinationPort:
		return bigEndian(e.first), bigEndian(last)
	}
	if o.network {
		return bigEndian(e.first), bigEndian(last)
	}
	return native(e.first), native(last)
}

func protocolName(number []byte) string {
	switch {
	case bytes.Equal(number, []byte{unix.IPPROTO_TCP}):
		return "tcp"
	case bytes.Equal(number, []byte{unix.IPPROTO_UDP}):
		return "udp"
	}
	return fmt.Sprint(bigEndian(number))
}

// interfaceName reads a name; one that is not ended by a zero stands for all
// that begin so.
func interfaceName(value []byte) string {
	name := strings.TrimRight(string(value), "\x00")
	if len(name) == len(value) {
		name += "+"
	}
	return name
}

// statesOf reads conntrack's bits of states.
func statesOf(bits uint32) []ruleset.State {
	var states []ruleset.State
	for bit, s := range map[uint32]ruleset.State{
		1: ruleset.Invalid, 2: ruleset.Established, 4: ruleset.Related, 8: ruleset.New, 64: ruleset.Untracked,
	} {
		if bits&bit != 0 {
			states = append(states, s)
		}
	}
	slices.Sort(states)
	return states
}

// maxPrefixes bounds the prefixes that one range of addresses becomes.
const maxPrefixes = 32

// prefixes reads an address, the first bytes of one, one with a mask, or a
// range.
func (r *nativeReader) prefixes(o operand, e setElement) ([]netip.Prefix, bool) {
	size := map[ruleset.Family]int{ruleset.IPv4: 4, ruleset.IPv6: 16}[r.family]
	if len(e.first) > size {
		return nil, false
	}
	full := make([]byte, size)
	copy(full, e.first)
	first, _ := netip.AddrFromSlice(full)
	bits := len(e.first) * 8
	if o.mask != nil {
		ones := 0
		for ones < len(o.mask)*8 && o.mask[ones/8]&(0x80>>(ones%8)) != 0 {
			ones++
		}
		for i := ones; i < len(o.mask)*8; i++ {
			if o.mask[i/8]&(0x80>>(i%8)) != 0 {
				return nil, false
			}
		}
		bits = ones
	}
	if e.last == nil || bytes.Equal(e.first, e.last) {
		return []netip.Prefix{netip.PrefixFrom(first, bits).Masked()}, true
	}
	last, ok := netip.AddrFromSlice(e.last)
	if !ok || len(e.first) != size || o.mask != nil {
		return nil, false
	}
	return between(first, last)
}

// between covers a range of addresses with prefixes.
func between(first, last netip.Addr) (prefixes []netip.Prefix, ok bool) {
	for first.IsValid() && first.Compare(last) <= 0 {
		bits := first.BitLen()
		for bits > 0 {
			wider := netip.PrefixFrom(first, bits-1).Masked()
			if wider.Addr() != first || lastAddress(wider).Compare(last) > 0 {
				break
			}
			bits--
		}
		p := netip.PrefixFrom(first, bits)
		if prefixes = append(prefixes, p); len(prefixes) > maxPrefixes {
			return nil, false
		}
		first = lastAddress(p).Next()
	}
	return prefixes, len(prefixes) > 0
}

func lastAddress(p netip.Prefix) netip.Addr {
	value := p.Addr().AsSlice()
	for i := p.Bits(); i < len(value)*8; i++ {
		value[i/8] |= 0x80 >> (i % 8)
	}
	addr, _ := netip.AddrFromSlice(value)
	return addr
}
