package ruleset

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxTold is how many values of a field Describe names.
const maxTold = 6

// Describe says which packets of a whole are in the box, by the fields that not all
// of them have: "tcp to port 22, 15020-15021". It returns "" for the whole.
func (b Box) Describe(whole Box) string {
	var words []string
	for _, part := range []struct {
		field  Field
		before string
	}{
		{FieldProtocol, ""}, {FieldUID, "of uid "}, {FieldGID, "of gid "}, {FieldInterface, "by "},
		{FieldSrc, "from "}, {FieldSrcPort, "from port "}, {FieldDst, "to "}, {FieldDstPort, "to port "},
		{FieldState, "in state "}, {FieldHopPort, "where the proxy's own connection is from port "},
	} {
		values, all := b.values[part.field], whole.values[part.field]
		if values != nil && !values.Equal(all) {
			words = append(words, part.before+b.space.told(part.field, values, all))
		}
	}
	for group := range b.space.groups {
		for _, connection := range []bool{false, true} {
			field := b.space.markField(connection, group)
			if values, all := b.values[field], whole.values[field]; values != nil && !values.Equal(all) {
				words = append(words, "with mark "+b.space.told(field, values, all))
			}
		}
	}
	return strings.Join(words, " ")
}

// told names the values of a field, or those of all that it has not if these are
// fewer.
func (s *Space) told(f Field, values, all Values) string {
	but := ""
	if rest := all.Without(values); len(rest) < len(values) && len(rest) > 0 && rest.Size().Cmp(values.Size()) < 0 {
		but, values = "all but ", rest
	}
	var words []string
	for i, v := range values {
		if len(words) >= maxTold {
			return but + strings.Join(words, ", ") + fmt.Sprintf(" and %d more", len(values)-i)
		}
		words = append(words, s.texts(f, v)...)
	}
	return but + strings.Join(words, ", ")
}

func (s *Space) texts(f Field, v Interval) []string {
	switch f {
	case FieldProtocol, FieldState, FieldInterface:
		var words []string
		for n := v.First.low; n <= v.Last.low; n++ {
			var p Packet
			s.put(&p, f, Number{low: n})
			word := p.Protocol + string(p.State) + p.Interface
			switch {
			case f == FieldInterface && word == unnamedInterface:
				word = "any other interface"
			case f == FieldInterface && word == "":
				word = "a socket that is not bound"
			}
			words = append(words, word)
		}
		return words
	case FieldSrc, FieldDst:
		return prefixesOf(s.Family, v)
	case FieldUID, FieldGID, FieldSrcPort, FieldDstPort, FieldHopPort:
		if v.First == v.Last {
			return []string{fmt.Sprint(v.First.low)}
		}
		return []string{fmt.Sprintf("%d-%d", v.First.low, v.Last.low)}
	}
	pack := s.packs[int(f-fieldGroups)/2]
	text := formatMark(pack.unpack(uint32(v.First.low)), pack.mask)
	if v.First != v.Last {
		text += fmt.Sprintf(" to %#x", pack.unpack(uint32(v.Last.low)))
	}
	return []string{text}
}

// prefixesOf writes an interval of addresses as a prefix if it is one, as an address,
// or as a range.
func prefixesOf(family Family, v Interval) []string {
	first, last := v.First.address(family), v.Last.address(family)
	if first == last {
		return []string{first.String()}
	}
	for bits := range first.BitLen() {
		if p := netip.PrefixFrom(first, bits); p.Masked() == p && lastOf(p) == last {
			return []string{p.String()}
		}
	}
	return []string{first.String() + "-" + last.String()}
}

// Join puts boxes together that differ in one field only, again and again.
func Join(boxes []Box) []Box {
	for joined := true; joined; {
		joined = false
		for f := range boxesFields(boxes) {
			merged := joinBy(boxes, f)
			joined = joined || len(merged) < len(boxes)
			boxes = merged
		}
	}
	return boxes
}

func boxesFields(boxes []Box) int {
	if len(boxes) == 0 {
		return 0
	}
	return len(boxes[0].values)
}

// joinBy joins the boxes that differ in one given field.
func joinBy(boxes []Box, field int) []Box {
	if boxes[0].values[field] == nil {
		return boxes
	}
	place := map[string]int{}
	var all []Box
	var key []byte
	parts := map[int]Values{}
	for _, b := range boxes {
		key = key[:0]
		for f, v := range b.values {
			if f == field {
				continue
			}
			key = binary.AppendUvarint(key, uint64(len(v)))
			for _, i := range v {
				for _, word := range []uint64{i.First.high, i.First.low, i.Last.high, i.Last.low} {
					key = binary.AppendUvarint(key, word)
				}
			}
		}
		if i, found := place[string(key)]; found {
			parts[i] = append(parts[i], b.values[field]...)
			continue
		}
		place[string(key)] = len(all)
		parts[len(all)] = slices.Clone(b.values[field])
		all = append(all, b)
	}
	for i := range all {
		if len(parts[i]) != len(all[i].values[field]) {
			all[i] = all[i].With(Field(field), parts[i].sorted())
		}
	}
	return all
}
