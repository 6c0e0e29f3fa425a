package ruleset

import (
	"math/big"
	"slices"
)

// Box is a set of packets: all whose fields have one of some values each. A field
// without values is not looked at: all packets of the box have what a template says.
type Box struct {
	space  *Space
	values []Values
}

// Box returns the packets with some values of their fields. Marks are given as
// numbers with all bits.
func (s *Space) Box(values map[Field]Values) Box {
	box := Box{s, make([]Values, s.fieldCount())}
	for field, set := range values {
		box.values[field] = set
	}
	return box
}

// WithMarks returns the box with every packet mark, or with every connection mark,
// that a packet may have.
func (b Box) WithMarks(connection bool) Box {
	b.values = slices.Clone(b.values)
	for group := range b.space.groups {
		field := b.space.markField(connection, group)
		b.values[field] = b.space.All(field)
	}
	return b
}

// Space returns the space of the box.
func (b Box) Space() *Space { return b.space }

// Values returns the values of a field; nil if the box does not look at it.
func (b Box) Values(f Field) Values { return b.values[f] }

// With returns the box with other values of one field.
func (b Box) With(f Field, values Values) Box {
	b.values = slices.Clone(b.values)
	b.values[f] = values
	return b
}

// Size returns how many packets there are in the box.
func (b Box) Size() *big.Int {
	size := big.NewInt(1)
	for _, v := range b.values {
		if v != nil {
			size.Mul(size, v.Size())
		}
	}
	return size
}

// Contains reports whether a packet is in the box, as far as the box looks at it.
func (b Box) Contains(p Packet) bool {
	for f, v := range b.values {
		if v != nil && Field(f) != FieldHopPort && !v.Contains(b.space.numberOf(Field(f), p)) {
			return false
		}
	}
	return true
}

// Disjoint reports whether no packet is in both boxes, which look at the same
// fields.
func (b Box) Disjoint(other Box) bool {
	for f, v := range b.values {
		if v != nil && len(v.And(other.values[f])) == 0 {
			return true
		}
	}
	return false
}

// And returns what is in both boxes, which look at the same fields.
func (b Box) And(other Box) Box {
	both := Box{b.space, slices.Clone(b.values)}
	for f, v := range both.values {
		if v != nil {
			both.values[f] = v.And(other.values[f])
		}
	}
	return both
}
