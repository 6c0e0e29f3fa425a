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

// numbers returns the ends of a range of numbers.
func (o operand) numbers(element setElement) (from, to uint32) {
	last := element.last
	if last == nil {
		last = element.first
	}
	switch o.property {
	case propertySourcePort, propertyDestinationPort:
		return bigEndian(element.first), bigEndian(last)
	}
	if o.network {
		return bigEndian(element.first), bigEndian(last)
	}
	return native(element.first), native(last)
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

// interfaceName reads a name. A name without a zero byte at its end stands for all
// that begin with it.
func interfaceName(value []byte) string {
	name := strings.TrimRight(string(value), "\x00")
	if len(name) == len(value) {
		name += "+"
	}
	return name
}

// statesOf returns the states of conntrack's state bits.
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

// prefixes returns the prefixes of an address, the first bytes of one, one with a
// mask, or a range.
func (r *nativeReader) prefixes(loaded operand, element setElement) ([]netip.Prefix, bool) {
	size := map[ruleset.Family]int{ruleset.IPv4: 4, ruleset.IPv6: 16}[r.family]
	if len(element.first) > size {
		return nil, false
	}
	full := make([]byte, size)
	copy(full, element.first)
	first, _ := netip.AddrFromSlice(full)
	bits := len(element.first) * 8
	if loaded.mask != nil {
		ones := 0
		for ones < len(loaded.mask)*8 && loaded.mask[ones/8]&(0x80>>(ones%8)) != 0 {
			ones++
		}
		for i := ones; i < len(loaded.mask)*8; i++ {
			if loaded.mask[i/8]&(0x80>>(i%8)) != 0 {
				return nil, false
			}
		}
		bits = ones
	}
	if element.last == nil || bytes.Equal(element.first, element.last) {
		return []netip.Prefix{netip.PrefixFrom(first, bits).Masked()}, true
	}
	last, ok := netip.AddrFromSlice(element.last)
	if !ok || len(element.first) != size || loaded.mask != nil {
		return nil, false
	}
	return between(first, last)
}

// between returns prefixes that cover a range of addresses.
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
