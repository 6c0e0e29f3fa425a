package interception

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

const (
	acceptedPrefixes = "IPv4 and IPv6 addresses and CIDR ranges such as 10.0.0.0/8 or fd00::/8, separated by commas"
	acceptedCIDRs    = "* for all, an empty value for none, or " + acceptedPrefixes
)

// Prefixes is a set of address ranges of both families: masked, sorted, without
// repetitions. The empty set is nil.
type Prefixes []netip.Prefix

// String prints the set as ParsePrefixes reads it.
func (ps Prefixes) String() string {
	var text []byte
	for i, p := range ps {
		if i > 0 {
			text = append(text, ',')
		}
		text = p.AppendTo(text)
	}
	return string(text)
}

// CIDRs selects addresses: all of them, or those in Prefixes.
type CIDRs struct {
	All      bool
	Prefixes Prefixes // nil if All is set
}

// String prints the selection as ParseCIDRs reads it.
func (c CIDRs) String() string {
	if c.All {
		return wildcard
	}
	return c.Prefixes.String()
}

// ParsePrefixes reads addresses and CIDR ranges of both families, separated by
// commas. An address stands for the range of that address alone. Bits behind the
// prefix are cleared, as the kernel does. An empty text is the empty set.
func ParsePrefixes(text string) (Prefixes, error) {
	words, err := splitList(text, acceptedPrefixes)
	if err != nil {
		return nil, err
	}
	var set Prefixes
	for _, word := range words {
		prefix, err := parsePrefix(word)
		if err != nil {
			return nil, err
		}
		set = append(set, prefix)
	}
	slices.SortFunc(set, netip.Prefix.Compare)
	return slices.Compact(set), nil
}

// ParsePrefixLines reads addresses and CIDR ranges as ParsePrefixes does, from the
// lines of a file. A line holds one or several, separated by commas; a # begins a
// comment. The error names the line.
func ParsePrefixLines(text string) (Prefixes, error) {
	var set Prefixes
	number := 0
	for line := range strings.Lines(text) {
		number++
		line, _, _ = strings.Cut(line, "#")
		prefixes, err := ParsePrefixes(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		set = append(set, prefixes...)
	}
	slices.SortFunc(set, netip.Prefix.Compare)
	return slices.Compact(set), nil
}

// Merged returns the same addresses in as few ranges as can be: without ranges that
// others contain, and with one range for two halves.
func (ps Prefixes) Merged() Prefixes {
	sorted := slices.Clone(ps)
	slices.SortFunc(sorted, func(a, b netip.Prefix) int { // a wider range before those in it
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	merged := sorted[:0]
	for _, p := range sorted {
		if last := len(merged) - 1; last >= 0 && merged[last].Overlaps(p) {
			continue
		}
		merged = append(merged, p)
		for last := len(merged) - 1; last > 0; last-- {
			whole, err := merged[last].Addr().Prefix(merged[last].Bits() - 1)
			if err != nil || merged[last-1].Bits() != merged[last].Bits() || !whole.Contains(merged[last-1].Addr()) {
				break
			}
			merged = append(merged[:last-1], whole)
		}
	}
	return merged
}

// ParseCIDRs reads "*" as all addresses and anything else as ParsePrefixes does.
func ParseCIDRs(text string) (CIDRs, error) {
	if strings.TrimSpace(text) == wildcard {
		return CIDRs{All: true}, nil
	}
	prefixes, err := ParsePrefixes(text)
	if err != nil {
		return CIDRs{}, accepting(err, acceptedCIDRs)
	}
	return CIDRs{Prefixes: prefixes}, nil
}

func parsePrefix(word string) (netip.Prefix, error) {
	refused := &ValueError{Value: word, Accepted: acceptedPrefixes}
	if !strings.Contains(word, "/") {
		addr, err := netip.ParseAddr(word)
		if err != nil || addr.Zone() != "" || addr.Is4In6() {
			return netip.Prefix{}, refused
		}
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(word)
	if err != nil || prefix.Addr().Is4In6() {
		return netip.Prefix{}, refused
	}
	return prefix.Masked(), nil
}

// ParseLoopbackCIDR reads an IPv4 range within 127.0.0.0/8 that contains 127.0.0.1.
func ParseLoopbackCIDR(text string) (netip.Prefix, error) {
	prefix, err := parsePrefix(text)
	all, localhost := netip.MustParsePrefix("127.0.0.0/8"), netip.MustParseAddr("127.0.0.1")
	if err != nil || !prefix.Contains(localhost) || prefix.Bits() < all.Bits() {
		return netip.Prefix{}, &ValueError{Value: text, Accepted: "an IPv4 range from 127.0.0.0/8 to 127.0.0.1/32 that holds 127.0.0.1"}
	}
	return prefix, nil
}

// ParseAddresses reads addresses of both families, separated by commas, as
// ranges of one address each.
func ParseAddresses(text string) (Prefixes, error) {
	const accepted = "IPv4 and IPv6 addresses, separated by commas"
	prefixes, err := ParsePrefixes(text)
	if err != nil {
		return nil, accepting(err, accepted)
	}
	for _, p := range prefixes {
		if !p.IsSingleIP() {
			return nil, &ValueError{Value: p.String(), Reason: "a range", Accepted: accepted}
		}
	}
	return prefixes, nil
}

// formatAddresses prints ranges of one address each as ParseAddresses reads
// them.
func formatAddresses(ps Prefixes) string {
	words := make([]string, len(ps))
	for i, p := range ps {
		words[i] = p.Addr().String()
	}
	return strings.Join(words, ",")
}
