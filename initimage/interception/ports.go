package interception

import (
	"slices"
	"strconv"
	"strings"
)

// wildcard selects everything in the flags and annotations that take it.
const wildcard = "*"

const (
	acceptedPort       = "a port from 1 to 65535"
	acceptedPortRanges = "ports from 1 to 65535 and ranges such as 8000-8100, separated by commas"
	acceptedPorts      = "* for all, an empty value for none, or " + acceptedPortRanges
)

// PortRange is the ports from First to Last, both included, 1 to 65535.
type PortRange struct {
	First, Last uint16
}

// String prints a single port as 80 and a range as 8000-8100.
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return strconv.Itoa(int(r.First)) + "-" + strconv.Itoa(int(r.Last))
}

// Contains reports whether the range holds port.
func (r PortRange) Contains(port uint16) bool { return r.First <= port && port <= r.Last }

// PortRanges is a set of ports: sorted ranges that neither overlap nor touch.
// The empty set is nil.
type PortRanges []PortRange

// Contains reports whether the set holds port.
func (rs PortRanges) Contains(port uint16) bool {
	i := rs.from(port)
	return i < len(rs) && rs[i].Contains(port)
}

// from returns the index of the first range that ends at or after a port.
func (rs PortRanges) from(port uint16) int {
	i, _ := slices.BinarySearchFunc(rs, port, func(r PortRange, port uint16) int { return int(r.Last) - int(port) })
	return i
}

// String prints the set as ParsePortRanges reads it.
func (rs PortRanges) String() string {
	words := make([]string, len(rs))
	for i, r := range rs {
		words[i] = r.String()
	}
	return strings.Join(words, ",")
}

// NewPortRanges returns the set of all ports in the given ranges.
func NewPortRanges(ranges ...PortRange) PortRanges {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b PortRange) int { return int(a.First) - int(b.First) })
	var set PortRanges
	for _, r := range sorted {
		if n := len(set); n > 0 && int(r.First) <= int(set[n-1].Last)+1 {
			set[n-1].Last = max(set[n-1].Last, r.Last)
			continue
		}
		set = append(set, r)
	}
	return set
}

// Ports selects ports: all of them, or those in Ranges.
type Ports struct {
	All    bool
	Ranges PortRanges // nil if All is set
}

// String prints the selection as ParsePorts reads it.
func (p Ports) String() string {
	if p.All {
		return wildcard
	}
	return p.Ranges.String()
}

// ParsePort reads one port, 1 to 65535, in decimal.
func ParsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || !isDecimal(text) {
		return 0, &ValueError{Value: text, Accepted: acceptedPort}
	}
	return uint16(n), nil
}

// ParsePortRanges reads ports and ranges separated by commas. Spaces around them
// are ignored; an empty text is the empty set.
func ParsePortRanges(text string) (PortRanges, error) {
	words, err := splitList(text, acceptedPortRanges)
	if err != nil {
		return nil, err
	}
	ranges := make([]PortRange, 0, len(words))
	for _, word := range words {
		r, err := parsePortRange(word)
		if err != nil {
			return nil, err
		}
		ranges = append(ranges, r)
	}
	return NewPortRanges(ranges...), nil
}

// ParsePorts reads "*" as all ports and anything else as ParsePortRanges does.
func ParsePorts(text string) (Ports, error) {
	if strings.TrimSpace(text) == wildcard {
		return Ports{All: true}, nil
	}
	ranges, err := ParsePortRanges(text)
	if err != nil {
		return Ports{}, accepting(err, acceptedPorts)
	}
	return Ports{Ranges: ranges}, nil
}

func parsePortRange(word string) (PortRange, error) {
	first, last, isRange := strings.Cut(word, "-")
	lo, err := ParsePort(strings.TrimSpace(first))
	if err != nil {
		return PortRange{}, &ValueError{Value: word, Accepted: acceptedPortRanges}
	}
	if !isRange {
		return PortRange{First: lo, Last: lo}, nil
	}
	hi, err := ParsePort(strings.TrimSpace(last))
	if err != nil {
		return PortRange{}, &ValueError{Value: word, Accepted: acceptedPortRanges}
	}
	if hi < lo {
		return PortRange{}, &ValueError{Value: word, Reason: "the range ends before it begins", Accepted: acceptedPortRanges}
	}
	return PortRange{First: lo, Last: hi}, nil
}

// isDecimal reports whether a text consists of digits only: strconv also accepts
// "+80".
func isDecimal(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}
