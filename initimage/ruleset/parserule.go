package ruleset

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// ruleParser reads the words of one rule, left to right.
type ruleParser struct {
	family   Family
	words    []string
	module   string // extension that the last -m named
	protocol string
	rule     Rule
}

// matchOption reads the value of one match option.
type matchOption func(p *ruleParser, negated bool, value string) (Match, error)

// matchOptions are the options with one value whose meaning does not depend on the
// extension before them.
var matchOptions = map[string]matchOption{
	"-s":          parseSource,
	"-d":          parseDestination,
	"-i":          func(_ *ruleParser, n bool, v string) (Match, error) { return InInterface{v, n}, nil },
	"-o":          func(_ *ruleParser, n bool, v string) (Match, error) { return OutInterface{v, n}, nil },
	"-p":          parseProtocol,
	"--dport":     func(p *ruleParser, n bool, v string) (Match, error) { return parsePorts(p, false, n, v) },
	"--dports":    func(p *ruleParser, n bool, v string) (Match, error) { return parsePorts(p, false, n, v) },
	"--sport":     func(p *ruleParser, n bool, v string) (Match, error) { return parsePorts(p, true, n, v) },
	"--sports":    func(p *ruleParser, n bool, v string) (Match, error) { return parsePorts(p, true, n, v) },
	"--uid-owner": func(_ *ruleParser, n bool, v string) (Match, error) { return parseOwner(false, n, v) },
	"--gid-owner": func(_ *ruleParser, n bool, v string) (Match, error) { return parseOwner(true, n, v) },
	"--mark":      parseMarkMatch,
	"--ctstate":   parseConntrack,
	"--src-type":  func(_ *ruleParser, n bool, v string) (Match, error) { return parseAddressType(false, n, v) },
	"--dst-type":  func(_ *ruleParser, n bool, v string) (Match, error) { return parseAddressType(true, n, v) },
}

// modules are the extensions whose options are above, or one of their own.
var modules = []string{"tcp", "udp", "multiport", "owner", "mark", "connmark", "conntrack", "addrtype", "comment"}

func parseRule(family Family, words []string) (Rule, error) {
	p := &ruleParser{family: family, words: words}
	for len(p.words) > 0 {
		if err := p.option(); err != nil {
			return Rule{}, err
		}
	}
	return p.rule, nil
}

// option reads one option and its values.
func (p *ruleParser) option() error {
	negated := p.accept("!")
	if len(p.words) == 0 {
		return fmt.Errorf("nothing follows the exclamation mark")
	}
	name := p.next()
	if len(p.words) == 0 {
		return fmt.Errorf("%s has no value, or is unknown", name)
	}
	switch name {
	case "-m":
		return p.openModule(p.next())
	case "-j", "-g":
		return p.target(name)
	case "--comment":
		p.rule.Comment = p.next()
		return nil
	case "--tcp-flags":
		return p.tcpFlags(negated)
	}
	parse, known := matchOptions[name]
	if !known {
		return p.unknownOption(negated, name)
	}
	m, err := parse(p, negated, p.next())
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	p.rule.Matches = append(p.rule.Matches, m)
	return nil
}

// unknownOption makes an option of an extension opaque, with its values.
func (p *ruleParser) unknownOption(negated bool, name string) error {
	if p.module == "" || !strings.HasPrefix(name, "--") {
		return fmt.Errorf("unknown option %q", name)
	}
	option := []string{name}
	for len(p.words) > 0 && p.words[0] != "!" && !strings.HasPrefix(p.words[0], "-") {
		option = append(option, p.next())
	}
	p.rule.Matches = append(p.rule.Matches, OpaqueMatch{extension(p.module, negate(negated, option...))})
	return nil
}

func (p *ruleParser) next() string {
	word := p.words[0]
	p.words = p.words[1:]
	return word
}

func (p *ruleParser) accept(word string) bool {
	if len(p.words) == 0 || p.words[0] != word {
		return false
	}
	p.words = p.words[1:]
	return true
}

// openModule notes a known extension. An unknown one becomes opaque, with
// everything up to the next option that all rules share.
func (p *ruleParser) openModule(name string) error {
	p.module = name
	ours := name == "socket" && len(p.words) > 0 && p.words[0] == "--mark" // not iptables' own
	if slices.Contains(modules, name) || ours {
		return nil
	}
	opaque := OpaqueMatch{Args: []string{"-m", name}}
	for len(p.words) > 0 && p.words[0] != "-m" && p.words[0] != "-j" && p.words[0] != "-g" {
		opaque.Args = append(opaque.Args, p.next())
	}
	p.rule.Matches = append(p.rule.Matches, opaque)
	return nil
}

func (p *ruleParser) tcpFlags(negated bool) error {
	if len(p.words) < 2 {
		return fmt.Errorf("--tcp-flags needs the flags looked at and the flags set")
	}
	mask, set := p.next(), p.next()
	if mask == "FIN,SYN,RST,ACK" && set == "SYN" {
		p.rule.Matches = append(p.rule.Matches, SYN{Not: negated})
		return nil
	}
	p.rule.Matches = append(p.rule.Matches, OpaqueMatch{extension("tcp", negate(negated, "--tcp-flags", mask, set))})
	return nil
}

func (p *ruleParser) prefix(value string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(value)
	if err != nil {
		addr, err := netip.ParseAddr(value)
		if err != nil {
			return netip.Prefix{}, err
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	if prefix.Addr().Zone() != "" || !p.family.Of(prefix.Addr()) {
		return netip.Prefix{}, fmt.Errorf("%q is not %s", value, p.family)
	}
	return prefix.Masked(), nil
}

func parseSource(p *ruleParser, negated bool, value string) (Match, error) {
	prefix, err := p.prefix(value)
	return Source{prefix, negated}, err
}

func parseDestination(p *ruleParser, negated bool, value string) (Match, error) {
	prefix, err := p.prefix(value)
	return Destination{prefix, negated}, err
}

func parseProtocol(p *ruleParser, negated bool, value string) (Match, error) {
	p.protocol = value
	return Protocol{value, negated}, nil
}

func parsePorts(p *ruleParser, source, negated bool, value string) (Match, error) {
	m := Ports{Protocol: p.protocol, Source: source, Not: negated}
	if p.module == "tcp" || p.module == "udp" {
		m.Protocol = p.module
	}
	var ranges []interception.PortRange
	for word := range strings.SplitSeq(value, ",") {
		lo, hi, ok := parseRange(word, ":", 16)
		if !ok {
			return nil, fmt.Errorf("%q is not a port or range of ports", word)
		}
		ranges = append(ranges, interception.PortRange{First: uint16(lo), Last: uint16(hi)})
	}
	m.Ranges = interception.NewPortRanges(ranges...)
	return m, nil
}

// parseRange reads one decimal number of some bits, or two with a separator.
func parseRange(text, separator string, bits int) (lo, hi uint64, ok bool) {
	first, last, isRange := strings.Cut(text, separator)
	if !isRange {
		last = first
	}
	lo, errLow := strconv.ParseUint(first, 10, bits)
	hi, errHigh := strconv.ParseUint(last, 10, bits)
	return lo, hi, errLow == nil && errHigh == nil && lo <= hi
}

func parseOwner(group, negated bool, value string) (Match, error) {
	lo, hi, ok := parseRange(value, "-", 32)
	if !ok {
		return nil, fmt.Errorf("%q is not an id or range of ids", value)
	}
	return Owner{Group: group, First: uint32(lo), Last: uint32(hi), Not: negated}, nil
}

func parseMarkMatch(p *ruleParser, negated bool, value string) (Match, error) {
	v, mask, err := parseMark(value)
	if p.module == "socket" {
		return SocketMark{Value: v, Mask: mask}, err
	}
	return Mark{Connection: p.module == "connmark", Value: v, Mask: mask, Not: negated}, err
}

// parseMark reads VALUE or VALUE/MASK, decimal or 0x….
func parseMark(text string) (value, mask uint32, err error) {
	first, last, masked := strings.Cut(text, "/")
	number, err := strconv.ParseUint(first, 0, 32)
	if err != nil {
		return 0, 0, fmt.Errorf("%q is not a mark", text)
	}
	if !masked {
		return uint32(number), allBits, nil
	}
	bits, err := strconv.ParseUint(last, 0, 32)
	if err != nil {
		return 0, 0, fmt.Errorf("%q is not a mark with a mask", text)
	}
	return uint32(number), uint32(bits), nil
}

func parseConntrack(_ *ruleParser, negated bool, value string) (Match, error) {
	m := Conntrack{Not: negated}
	for word := range strings.SplitSeq(value, ",") {
		s := State(word)
		if !slices.Contains(states, s) {
			return OpaqueMatch{extension("conntrack", negate(negated, "--ctstate", value))}, nil
		}
		m.States = append(m.States, s)
	}
	slices.SortFunc(m.States, func(a, b State) int { return slices.Index(states, a) - slices.Index(states, b) })
	m.States = slices.Compact(m.States)
	return m, nil
}

func parseAddressType(destination, negated bool, value string) (Match, error) {
	m := AddressType{Destination: destination, Not: negated}
	if value != "LOCAL" {
		option := m.args()[:len(m.args())-1]
		return OpaqueMatch{append(option, value)}, nil
	}
	return m, nil
}
