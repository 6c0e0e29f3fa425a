package ruleset

import (
	"cmp"
	"encoding/binary"
	"math/big"
	"net/netip"
	"slices"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// Number is the value of a field of packets: a port, an id, the bits of a mark or
// of an address, or the place in a list of names.
type Number struct{ high, low uint64 }

func numberOf[T uint16 | uint32 | int](n T) Number { return Number{low: uint64(n)} }

func addressNumber(a netip.Addr) Number {
	if a.Is4() {
		four := a.As4()
		return Number{low: uint64(binary.BigEndian.Uint32(four[:]))}
	}
	all := a.As16()
	return Number{binary.BigEndian.Uint64(all[:8]), binary.BigEndian.Uint64(all[8:])}
}

func (n Number) address(family Family) netip.Addr {
	if family == IPv4 {
		var four [4]byte
		binary.BigEndian.PutUint32(four[:], uint32(n.low))
		return netip.AddrFrom4(four)
	}
	var all [16]byte
	binary.BigEndian.PutUint64(all[:8], n.high)
	binary.BigEndian.PutUint64(all[8:], n.low)
	return netip.AddrFrom16(all)
}

func (n Number) compare(other Number) int {
	return cmp.Or(cmp.Compare(n.high, other.high), cmp.Compare(n.low, other.low))
}

func (n Number) next() Number {
	n.low++
	if n.low == 0 {
		n.high++
	}
	return n
}

func (n Number) previous() Number {
	if n.low == 0 {
		n.high--
	}
	n.low--
	return n
}

func (n Number) big() *big.Int {
	high := new(big.Int).SetUint64(n.high)
	return high.Or(high.Lsh(high, 64), new(big.Int).SetUint64(n.low))
}

// Interval holds the numbers from First to Last.
type Interval struct{ First, Last Number }

// Values is a set of numbers: intervals in order that neither meet nor touch.
type Values []Interval

// Only returns the set of some ports, ids or marks.
func Only[T uint16 | uint32 | int](numbers ...T) Values {
	all := make(Values, len(numbers))
	for i, n := range numbers {
		all[i] = Interval{numberOf(n), numberOf(n)}
	}
	return all.sorted()
}

// PortValues returns the set of the ports of some ranges.
func PortValues(ranges interception.PortRanges) Values {
	all := make(Values, len(ranges))
	for i, r := range ranges {
		all[i] = Interval{numberOf(r.First), numberOf(r.Last)}
	}
	return all.sorted()
}

// AddressValues returns the set of the addresses of some prefixes.
func AddressValues(prefixes ...netip.Prefix) Values {
	all := make(Values, len(prefixes))
	for i, p := range prefixes {
		all[i] = prefixInterval(p)
	}
	return all.sorted()
}

func prefixInterval(p netip.Prefix) Interval {
	return Interval{addressNumber(p.Masked().Addr()), addressNumber(lastOf(p))}
}

// sorted puts intervals in order and joins those that meet or touch, in place.
func (v Values) sorted() Values {
	slices.SortFunc(v, func(a, b Interval) int { return a.First.compare(b.First) })
	joined := v[:0]
	for _, i := range v {
		if n := len(joined); n > 0 && (i.First.compare(joined[n-1].Last) <= 0 || i.First == joined[n-1].Last.next()) {
			if i.Last.compare(joined[n-1].Last) > 0 {
				joined[n-1].Last = i.Last
			}
			continue
		}
		joined = append(joined, i)
	}
	return joined
}

// Contains reports whether a number is in the set.
func (v Values) Contains(n Number) bool {
	_, found := slices.BinarySearchFunc(v, n, func(i Interval, n Number) int {
		switch {
		case i.Last.compare(n) < 0:
			return -1
		case i.First.compare(n) > 0:
			return 1
		}
		return 0
	})
	return found
}

// And returns what is in both sets.
func (v Values) And(other Values) Values {
	var both Values
	for i, j := 0, 0; i < len(v) && j < len(other); {
		a, b := v[i], other[j]
		first, last := a.First, a.Last
		if b.First.compare(first) > 0 {
			first = b.First
		}
		if b.Last.compare(last) < 0 {
			last = b.Last
		}
		if first.compare(last) <= 0 {
			both = append(both, Interval{first, last})
		}
		if a.Last.compare(b.Last) < 0 {
			i++
		} else {
			j++
		}
	}
	return both
}

// Without returns what is in the set and not in the other.
func (v Values) Without(other Values) Values {
	var rest Values
	j := 0
	for _, left := range v {
		for j < len(other) && other[j].Last.compare(left.First) < 0 {
			j++
		}
		whole := true
		for k := j; k < len(other) && other[k].First.compare(left.Last) <= 0; k++ {
			if other[k].First.compare(left.First) > 0 {
				rest = append(rest, Interval{left.First, other[k].First.previous()})
			}
			if other[k].Last.compare(left.Last) >= 0 {
				whole = false
				break
			}
			left.First = other[k].Last.next()
		}
		if whole {
			rest = append(rest, left)
		}
	}
	return rest
}

// Or returns what is in either set.
func (v Values) Or(other Values) Values { return slices.Concat(v, other).sorted() }

// Equal reports whether the sets hold the same numbers.
func (v Values) Equal(other Values) bool { return slices.Equal(v, other) }

// Size returns how many numbers the set has.
func (v Values) Size() *big.Int {
	total := new(big.Int)
	for _, i := range v {
		count := i.Last.big()
		count.Sub(count, i.First.big())
		total.Add(total, count.Add(count, big.NewInt(1)))
	}
	return total
}

// pick returns one of the set: the first of some preferred numbers that it has, or
// else its first.
func (v Values) pick(preferred []Number) Number {
	for _, n := range preferred {
		if v.Contains(n) {
			return n
		}
	}
	return v[0].First
}

// numbers returns the first of each interval.
func (v Values) numbers() []Number {
	all := make([]Number, len(v))
	for i := range v {
		all[i] = v[i].First
	}
	return all
}
