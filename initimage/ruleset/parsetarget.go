package ruleset

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// target reads the target and its options, which end the rule.
func (p *ruleParser) target(option string) error {
	if p.rule.Target != nil {
		return fmt.Errorf("more than one target")
	}
	name := p.next()
	rest := p.words
	if i := slices.IndexFunc(rest, func(w string) bool { return w == "-m" || w == "!" }); i >= 0 {
		rest = rest[:i]
	}
	p.words = p.words[len(rest):]
	var err error
	if option == "-g" {
		p.rule.Target = Jump{Chain: name, Goto: true}
		return nil
	}
	p.rule.Target, err = parseTarget(p.family, name, rest)
	return err
}

func parseTarget(family Family, name string, options []string) (Target, error) {
	values := pairs(options)
	opaque := OpaqueTarget{append([]string{"-j", name}, options...)}
	switch name {
	case "ACCEPT", "DROP", "RETURN":
		return Verdict(name), nil
	case "REJECT":
		return Reject{With: values["--reject-with"]}, nil
	case "REDIRECT":
		return parseRedirect(values, opaque)
	case "DNAT":
		if family == IPv4 && slices.Equal(opaque.Args, Nowhere{}.args()) {
			return Nowhere{}, nil
		}
		return opaque, nil
	case "TPROXY":
		return parseTProxy(family, values)
	case "MARK":
		return parseSetMark(false, values, opaque)
	case "CT":
		return parseZone(options, opaque)
	case "CONNMARK":
		return parseConnmark(options, values, opaque)
	}
	if len(options) > 0 {
		return opaque, nil
	}
	return Jump{Chain: name}, nil
}

// pairs reads options with one value each; an option without a value gets "".
func pairs(options []string) map[string]string {
	values := map[string]string{}
	name := ""
	for _, word := range options {
		if strings.HasPrefix(word, "--") {
			name = word
			values[name] = ""
			continue
		}
		values[name] = word
	}
	return values
}

func parseRedirect(values map[string]string, opaque Target) (Target, error) {
	if port, err := strconv.ParseUint(values["--to-ports"], 10, 16); err == nil {
		return Redirect{Port: uint16(port)}, nil
	}
	return opaque, nil // a range of ports, or none
}

// parseZone reads a zone that is given alone, and --notrack.
func parseZone(options []string, opaque Target) (Target, error) {
	if len(options) == 2 && options[0] == "--zone" {
		if zone, err := strconv.ParseUint(options[1], 0, 16); err == nil {
			return ConntrackZone{Zone: uint16(zone)}, nil
		}
	}
	if slices.Equal(options, []string{"--notrack"}) {
		return NoTrack{}, nil
	}
	return opaque, nil
}

func parseTProxy(family Family, values map[string]string) (Target, error) {
	t := TProxy{Address: family.unspecified()}
	port, err := strconv.ParseUint(values["--on-port"], 10, 16)
	if err != nil {
		return nil, fmt.Errorf("TPROXY --on-port %q is not a port", values["--on-port"])
	}
	t.Port = uint16(port)
	if text, given := values["--on-ip"]; given {
		if t.Address, err = netip.ParseAddr(text); err != nil || !family.Of(t.Address) || t.Address.Zone() != "" {
			return nil, fmt.Errorf("TPROXY --on-ip %q is not %s", text, family)
		}
	}
	if text, given := values["--tproxy-mark"]; given {
		t.Mark, t.Mask, err = parseMark(text)
	}
	return t, err
}

// parseSetMark reads --set-xmark, and --set-mark, which sets the bits of the
// value beside those of the mask (iptables-extensions(8)).
func parseSetMark(connection bool, values map[string]string, opaque Target) (Target, error) {
	for _, option := range []string{"--set-xmark", "--set-mark"} {
		text, given := values[option]
		if !given {
			continue
		}
		value, mask, err := parseMark(text)
		if option == "--set-mark" {
			mask |= value
		}
		return SetMark{Connection: connection, Value: value, Mask: mask}, err
	}
	return opaque, nil
}

func parseConnmark(options []string, values map[string]string, opaque Target) (Target, error) {
	var masks Masks
	for mask, spare := range map[string]*uint32{"--nfmask": &masks.SparePacket, "--ctmask": &masks.SpareConnection} {
		text, given := values[mask]
		if bits, err := parseUint32(text); given && err == nil {
			*spare = ^bits
		} else if given {
			return opaque, nil
		}
	}
	switch _, both := values["--mask"]; {
	case both:
		return opaque, nil
	case slices.Contains(options, "--save-mark"):
		return SaveMark{masks}, nil
	case slices.Contains(options, "--restore-mark"):
		return RestoreMark{masks}, nil
	}
	return parseSetMark(true, values, opaque)
}
