package nft

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// numbers returns the ends of a range of numbers.
func (o Operand) numbers(element Element) (from, to uint32) {
	last := element.Last
	if last == nil {
		last = element.First
	}
	switch o.Property {
	case PropertySourcePort, PropertyDestinationPort:
		return BigEndian(element.First), BigEndian(last)
	}
	if o.Network {
		return BigEndian(element.First), BigEndian(last)
	}
	return Native(element.First), Native(last)
}

func protocolName(number []byte) string {
	switch {
	case bytes.Equal(number, []byte{protocolTCP}):
		return "tcp"
	case bytes.Equal(number, []byte{protocolUDP}):
		return "udp"
	}
	return fmt.Sprint(BigEndian(number))
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
func (r Translator) prefixes(loaded Operand, element Element) ([]netip.Prefix, bool) {
	size := map[ruleset.Family]int{ruleset.IPv4: 4, ruleset.IPv6: 16}[r.Family]
	if len(element.First) > size {
		return nil, false
	}
	full := make([]byte, size)
	copy(full, element.First)
	first, _ := netip.AddrFromSlice(full)
	bits := len(element.First) * 8
	if loaded.Mask != nil {
		ones := 0
		for ones < len(loaded.Mask)*8 && loaded.Mask[ones/8]&(0x80>>(ones%8)) != 0 {
			ones++
		}
		for i := ones; i < len(loaded.Mask)*8; i++ {
			if loaded.Mask[i/8]&(0x80>>(i%8)) != 0 {
				return nil, false
			}
		}
		bits = ones
	}
	if element.Last == nil || bytes.Equal(element.First, element.Last) {
		return []netip.Prefix{netip.PrefixFrom(first, bits).Masked()}, true
	}
	last, ok := netip.AddrFromSlice(element.Last)
	if !ok || len(element.First) != size || loaded.Mask != nil {
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
			if wider.Addr() != first || LastAddress(wider).Compare(last) > 0 {
				break
			}
			bits--
		}
		p := netip.PrefixFrom(first, bits)
		if prefixes = append(prefixes, p); len(prefixes) > maxPrefixes {
			return nil, false
		}
		first = LastAddress(p).Next()
	}
	return prefixes, len(prefixes) > 0
}

// LastAddress returns the last address of a prefix.
func LastAddress(p netip.Prefix) netip.Addr {
	value := p.Addr().AsSlice()
	for i := p.Bits(); i < len(value)*8; i++ {
		value[i/8] |= 0x80 >> (i % 8)
	}
	addr, _ := netip.AddrFromSlice(value)
	return addr
}

// Before returns the value that is one less, of the same size.
func Before(value []byte) []byte {
	less := slices.Clone(value)
	for i := len(less) - 1; i >= 0; i-- {
		less[i]--
		if less[i] != 0xff {
			break
		}
	}
	return less
}

// BigEndian reads a number of up to four bytes in network byte order.
func BigEndian(value []byte) uint32 {
	var n uint32
	for _, b := range value[:min(4, len(value))] {
		n = n<<8 | uint32(b)
	}
	return n
}

// Native reads a number of four bytes in this machine's byte order.
func Native(value []byte) uint32 {
	if len(value) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(value)
}
