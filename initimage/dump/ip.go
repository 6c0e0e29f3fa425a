package dump

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// policyRule is a line of ip rule.
type policyRule struct {
	text     string
	priority uint32
	source   netip.Prefix
	marked   bool
	mark     uint32
	mask     uint32
	out      string   // interface
	others   []string // conditions that a walk does not know
	table    string   // that it looks up; "" if it does something else
	action   string   // what it does instead
}

// plain reports whether the rule is for every packet.
func (p policyRule) plain() bool {
	return !p.source.IsValid() && !p.marked && p.out == "" && len(p.others) == 0
}

const allBits = 1<<32 - 1

// ruleLine reads a line of ip rule. Consecutive lines are one output.
func (s *scanner) ruleLine(text string) error {
	rule, err := parsePolicyRule(text)
	if err != nil {
		return &Error{s.file, s.number, fmt.Errorf("%q: %w", clip(text), err)}
	}
	if n := len(s.rules); n > 0 && s.rules[n-1].file == s.file && s.rules[n-1].line+len(s.rules[n-1].rules) == s.number {
		s.rules[n-1].rules = append(s.rules[n-1].rules, rule)
		return nil
	}
	s.rules = append(s.rules, ruleBlock{place: s.place(), rules: []policyRule{rule}, hint: s.hint})
	return nil
}

// parsePolicyRule reads "32765: from all fwmark 0x539 lookup 133".
func parsePolicyRule(text string) (rule policyRule, err error) {
	number, rest, _ := strings.Cut(text, ":")
	priority, err := strconv.ParseUint(strings.TrimSpace(number), 10, 32)
	if err != nil {
		return rule, fmt.Errorf("%q is not a priority", number)
	}
	fields := strings.Fields(rest)
	rule = policyRule{text: strings.Join(fields, " "), priority: uint32(priority)}
	for len(fields) > 0 {
		key := fields[0]
		switch key {
		case "not", "[detached]", "unresolved":
			rule.others = append(rule.others, key)
			fields = fields[1:]
			continue
		case "unreachable", "blackhole", "prohibit", "nop":
			rule.action = key
			fields = fields[1:]
			continue
		}
		if len(fields) < 2 {
			return rule, fmt.Errorf("%q has no value", key)
		}
		if err := rule.set(key, fields[1]); err != nil {
			return rule, err
		}
		fields = fields[2:]
	}
	return rule, nil
}

// set reads a key of ip rule and its value.
func (p *policyRule) set(key, value string) (err error) {
	switch key {
	case "from":
		if value != "all" && value != "0.0.0.0/0" && value != "::/0" {
			p.source, err = parsePrefix(value)
			p.source = p.source.Masked()
		}
	case "to":
		if value != "all" {
			p.others = append(p.others, key+" "+value)
		}
	case "fwmark":
		mark, mask, masked := strings.Cut(value, "/")
		p.marked, p.mask = true, allBits
		p.mark, err = parseUint32(mark)
		if masked && err == nil {
			p.mask, err = parseUint32(mask)
		}
	case "oif":
		p.out = value
	case "lookup", "table":
		p.table = value
	case "goto":
		p.action = key + " " + value
	case "proto", "protocol":
	default:
		p.others = append(p.others, key+" "+value)
	}
	return err
}

func parseUint32(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 0, 32)
	return uint32(n), err
}

// addObjects reads what ip -j prints: rules, routes or interfaces.
func (s *scanner) addObjects(at place, raw json.RawMessage) error {
	var objects []map[string]any
	if err := json.Unmarshal(raw, &objects); err != nil {
		return fmt.Errorf("reading JSON: %w", err)
	}
	if len(objects) == 0 {
		return nil
	}
	var rules []policyRule
	for i, object := range objects {
		var err error
		switch {
		case object["priority"] != nil:
			var rule policyRule
			rule, err = ruleOf(object)
			rules = append(rules, rule)
		case object["ifname"] != nil:
			err = s.linkOf(object)
		case object["dst"] != nil:
			var r route
			r, err = routeOf(object)
			s.addRoute(r)
		default:
			err = errors.New("neither a rule, a route nor an interface")
		}
		if err != nil {
			return fmt.Errorf("object %d: %w; %s", i+1, err, accepted)
		}
	}
	if len(rules) > 0 {
		s.rules = append(s.rules, ruleBlock{place: at, rules: rules, hint: s.hint})
	}
	return nil
}

// ruleOf reads an object of ip -j rule, by the words that ip rule prints for it.
func ruleOf(of map[string]any) (policyRule, error) {
	priority, ok := number(of["priority"])
	if !ok {
		return policyRule{}, errors.New("its priority is not a number")
	}
	words := []string{fmt.Sprintf("%d:", priority)}
	pair := func(word, key, length string) {
		if value := fmt.Sprint(of[key]); of[key] != nil {
			if bits, given := number(of[length]); given {
				value += fmt.Sprintf("/%d", bits)
			}
			words = append(words, word, value)
		}
	}
	if _, not := of["not"]; not {
		words = append(words, "not")
	}
	pair("from", "src", "srclen")
	pair("to", "dst", "dstlen")
	if of["fwmark"] != nil {
		value := fmt.Sprint(of["fwmark"])
		if of["fwmask"] != nil {
			value += "/" + fmt.Sprint(of["fwmask"])
		}
		words = append(words, "fwmark", value)
	}
	pair("oif", "oif", "")
	pair("lookup", "table", "")
	if goTo, given := number(of["goto"]); given {
		words = append(words, "goto", fmt.Sprint(goTo))
	}
	for key, value := range of {
		switch key {
		case "priority", "not", "src", "srclen", "dst", "dstlen", "fwmark", "fwmask", "oif", "table", "goto", "protocol":
		case "action":
			words = append(words, fmt.Sprint(value))
		default:
			if value == nil {
				value = "yes"
			}
			words = append(words, key, strings.ReplaceAll(fmt.Sprint(value), " ", ""))
		}
	}
	return parsePolicyRule(strings.Join(words, " "))
}

// route is a line of ip route.
type route struct {
	text   string
	family ruleset.Family
	kind   string // unicast, local, unreachable, ...
	all    bool   // it is the default route
	dst    netip.Prefix
	dev    string
	table  string
}

// routeLine reads a line of ip route.
func (s *scanner) routeLine(text string) error {
	fields := strings.Fields(text)
	r := route{text: strings.Join(fields, " "), family: ruleset.IPv4, kind: "unicast", table: "main"}
	if s.hint.family == ruleset.IPv6 {
		r.family = ruleset.IPv6
	}
	if _, err := parsePrefix(fields[0]); err != nil && fields[0] != "default" && len(fields) > 1 {
		r.kind, fields = fields[0], fields[1:]
	}
	if err := r.setDestination(fields[0]); err != nil {
		return &Error{s.file, s.number, fmt.Errorf("%q: %w", clip(text), err)}
	}
	for i, word := range fields {
		if i+1 == len(fields) {
			break
		}
		switch word {
		case "dev":
			r.dev = fields[i+1]
		case "table":
			r.table = fields[i+1]
		case "pref":
			r.family = ruleset.IPv6
		case "via":
			if addr, err := netip.ParseAddr(fields[i+1]); err == nil && r.all && addr.Is6() {
				r.family = ruleset.IPv6
			}
		}
	}
	s.addRoute(r)
	return nil
}

// setDestination reads where a route leads to. ip leaves out the zeros at the end of
// an IPv4 address.
func (r *route) setDestination(text string) error {
	if text == "default" {
		r.all = true
		return nil
	}
	addr, bits, _ := strings.Cut(text, "/")
	if !strings.Contains(addr, ":") {
		addr += strings.Repeat(".0", max(0, 3-strings.Count(addr, ".")))
	}
	if bits != "" {
		addr += "/" + bits
	}
	prefix, err := parsePrefix(addr)
	if err != nil {
		return err
	}
	r.dst, r.all, r.family = prefix, prefix.Bits() == 0, ruleset.IPv4
	if prefix.Addr().Is6() {
		r.family = ruleset.IPv6
	}
	return nil
}

// routeOf reads an object of ip -j route, by the words that ip route prints for it.
func routeOf(of map[string]any) (route, error) {
	r := route{family: ruleset.IPv4, kind: "unicast", table: "main"}
	for key, into := range map[string]*string{"type": &r.kind, "dev": &r.dev, "table": &r.table} {
		if value, is := of[key].(string); is {
			*into = value
		}
	}
	gateway, _ := of["gateway"].(string)
	if of["pref"] != nil || strings.Contains(gateway, ":") {
		r.family = ruleset.IPv6
	}
	dst := fmt.Sprint(of["dst"])
	r.text = strings.TrimPrefix(r.kind+" ", "unicast ") + dst
	for _, pair := range [][2]string{{"via", gateway}, {"dev", r.dev}, {"table", r.table}} {
		if pair[1] != "" {
			r.text += " " + pair[0] + " " + pair[1]
		}
	}
	return r, r.setDestination(dst)
}

func (s *scanner) addRoute(r route) {
	r.table = tableNumber(r.table)
	s.routes = append(s.routes, r)
	s.allTables = s.allTables || r.table != tableMain
}

// The tables that the kernel makes, by their numbers.
const (
	tableLocal   = "255"
	tableMain    = "254"
	tableDefault = "253"
)

// tableNumber returns the number of a table that ip has a name for.
func tableNumber(name string) string {
	for number, known := range map[string]string{tableLocal: "local", tableMain: "main", tableDefault: "default"} {
		if name == known {
			return number
		}
	}
	return name
}

// link is an interface and its addresses.
type link struct {
	name      string
	loopback  bool
	addresses []netip.Prefix
}

// linkOf reads "2: eth0@if5: <BROADCAST,UP> mtu 1500".
func linkOf(text string) link {
	fields := strings.Fields(text)
	name, _, _ := strings.Cut(strings.TrimSuffix(fields[1], ":"), "@")
	return link{name: name, loopback: strings.Contains(fields[2], "LOOPBACK")}
}

// addLink makes an interface the current one.
func (c *contents) addLink(l link) {
	c.asked["ip addr"] = true
	i, known := c.linkByName[l.name]
	if !known {
		i = len(c.links)
		c.linkByName[l.name] = i
		c.links = append(c.links, l)
	}
	c.current = &c.links[i]
}

// continued reads a line that belongs to the one before it: an address of an
// interface, or nothing that matters.
func (s *scanner) continued(text string) error {
	fields := strings.Fields(text)
	if len(fields) < 2 || fields[0] != "inet" && fields[0] != "inet6" || s.current == nil {
		return nil
	}
	return s.address(fields[1])
}

// oneLine reads a line of ip -o addr: "2: eth0    inet 10.0.0.1/24 scope global eth0".
func (s *scanner) oneLine(text string) error {
	fields := strings.Fields(text)
	s.addLink(link{name: fields[1], loopback: fields[1] == "lo"})
	return s.address(fields[3])
}

// address adds an address to the current interface.
func (s *scanner) address(text string) error {
	prefix, err := parsePrefix(text)
	if err != nil {
		return &Error{s.file, s.number, fmt.Errorf("%q is not an address", clip(text))}
	}
	s.current.addresses = append(s.current.addresses, prefix)
	return nil
}

// linkOf reads an object of ip -j addr.
func (s *scanner) linkOf(of map[string]any) error {
	name, _ := of["ifname"].(string)
	s.addLink(link{name: name, loopback: slices.Contains(words(of["flags"]), "LOOPBACK")})
	infos, _ := of["addr_info"].([]any)
	for _, info := range infos {
		addr, isAddr := addressOf(object(info)["local"])
		bits, isBits := number(object(info)["prefixlen"])
		if !isAddr || !isBits || int(bits) > addr.BitLen() {
			return fmt.Errorf("interface %s: an address that does not parse", name)
		}
		s.current.addresses = append(s.current.addresses, netip.PrefixFrom(addr, int(bits)))
	}
	return nil
}

// parsePrefix reads an address with or without its length.
func parsePrefix(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		addr, err := netip.ParseAddr(text)
		return netip.PrefixFrom(addr, addr.BitLen()), err
	}
	return netip.ParsePrefix(text)
}
