package dump

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// File is a file of a dump: the output of one program, or of several one after the
// other.
type File struct{ Name, Text string }

// Error is a place of a file that cannot be read.
type Error struct {
	File string
	Line int // from 1
	Err  error
}

// Error names the place.
func (e *Error) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Err) }

// Unwrap returns what is wrong there.
func (e *Error) Unwrap() error { return e.Err }

// accepted are the programs whose outputs are read.
const accepted = "accepted: the outputs of iptables-save, ip6tables-save, nft -j list ruleset, ip rule, ip -6 rule, " +
	"ip route show table all, ip addr and sysctl, with or without ip's -j"

// place is where in the dump an output begins.
type place struct {
	file string
	line int
}

func (p place) wrap(err error) error {
	var inText *ruleset.LineError
	if errors.As(err, &inText) {
		return &Error{p.file, p.line + inText.Line - 1, fmt.Errorf("%q: %w", inText.Text, inText.Err)}
	}
	return &Error{p.file, p.line, err}
}

func (p place) String() string { return fmt.Sprintf("%s:%d", p.file, p.line) }

// save is the output of one iptables-save.
type save struct {
	place
	text    string
	hint    hint
	decided ruleset.Family
	rules   ruleset.RuleSet
}

// ruleBlock is the output of one ip rule.
type ruleBlock struct {
	place
	rules []policyRule
	hint  hint
}

// hint is what is known of an output beside its text.
type hint struct {
	family  ruleset.Family // 0 if it is not known
	backend string         // "nft" or "legacy"; "" if it is not known
}

// contents are the outputs of a dump.
type contents struct {
	saves     []save
	rules     []ruleBlock
	listing   *listing
	listingAt place
	native    []ruleset.RuleSet // that shunt-init dump has read
	listeners []Listener
	routes    []route
	allTables bool // routes of other tables than main are there
	links     []link
	localnet  map[string]bool // route_localnet, by interface
	marks     map[string]bool // the sysctls by which sockets inherit marks

	linkByName map[string]int
	current    *link // the one whose addresses follow

	warnings []string // what the programs themselves say that they left out
	// asked are the programs whose name stands before their output, even an empty one.
	asked map[string]bool
}

// scanner goes through a file line by line.
type scanner struct {
	*contents
	file   string
	text   string
	at     int // offset of the current line
	number int // of the current line, from 1
	hint   hint
	last   string // program that the last heading named
	header string // and that the last comment of iptables-save did
}

// scan reads a file into the contents, in one pass.
func (c *contents) scan(f File) error {
	s := &scanner{contents: c, file: f.Name, text: f.Text, hint: hintOfName(f.Name)}
	for s.at < len(s.text) {
		s.number++
		if err := s.output(s.line()); err != nil {
			return err
		}
		s.at += len(s.line())
	}
	return nil
}

// line returns the current line with its end.
func (s *scanner) line() string {
	line, _, _ := strings.Cut(s.text[s.at:], "\n")
	return s.text[s.at:min(s.at+len(line)+1, len(s.text))]
}

func (s *scanner) place() place { return place{s.file, s.number} }

// hintOfName is what the name of a file says of its family.
func hintOfName(name string) hint {
	name = strings.ToLower(path.Base(strings.ReplaceAll(name, `\`, "/")))
	h := hint{}
	switch {
	case strings.Contains(name, "ip6"), strings.Contains(name, "v6"), strings.Contains(name, "-6"):
		h.family = ruleset.IPv6
	case strings.Contains(name, "ip4"), strings.Contains(name, "v4"), strings.Contains(name, "-4"), strings.Contains(name, "iptables"):
		h.family = ruleset.IPv4
	}
	for _, backend := range []string{"legacy", "nft"} {
		if strings.Contains(name, backend+"-save") || strings.Contains(name, "tables-"+backend) {
			h.backend = backend
		}
	}
	return h
}

// noise are the beginnings of lines that a terminal adds.
var noise = []string{"Defaulted container ", "command terminated ", "Last login", "exit"}

var (
	prompt      = regexp.MustCompile(`^(\[[^\]"]*\]|\S+( \S+)?)? ?[#$%>]( |$)`)
	ruleLine    = regexp.MustCompile(`^\d+:\s+(not )?from `)
	linkLine    = regexp.MustCompile(`^\d+: \S+: <`)
	addressLine = regexp.MustCompile(`^\d+: \S+ +inet6? `)
	routeLine   = regexp.MustCompile(`^((unicast|local|broadcast|multicast|anycast|throw|unreachable|prohibit|blackhole|nat) )?` +
		`(default|[0-9]+(\.[0-9]+){0,3}(/[0-9]+)?|[0-9a-fA-F]*:[0-9a-fA-F:.]*(/[0-9]+)?)( |$)`)
)

// output reads the output that begins with the line, or a line between outputs. It
// leaves the scanner at the last line that it read.
func (s *scanner) output(line string) error {
	text := strings.TrimRight(line, " \t\r\n")
	switch {
	case text == "" || slices.ContainsFunc(noise, func(n string) bool { return strings.HasPrefix(text, n) }):
		return nil
	case text[0] == '#':
		s.comment(text)
		return nil
	case prompt.MatchString(text):
		s.heading(text)
		return nil
	case text[0] == '*':
		return s.save()
	case text[0] == '{' || text[0] == '[':
		return s.json()
	case strings.HasPrefix(text, "net.ipv"):
		return s.sysctl(text)
	}
	if known, err := s.ipLine(text); known {
		return err
	}
	if s.heading(text) {
		return nil
	}
	if strings.HasPrefix(text, "table ") && strings.HasSuffix(text, "{") {
		return &Error{s.file, s.number, fmt.Errorf("%q: a listing in nft's own language; %s", text, accepted)}
	}
	return &Error{s.file, s.number, fmt.Errorf("%q: no output of a known program; %s", clip(text), accepted)}
}

// ipLine reads a line of ip, if it is one.
func (s *scanner) ipLine(text string) (known bool, err error) {
	switch {
	case ruleLine.MatchString(text):
		return true, s.ruleLine(text)
	case linkLine.MatchString(text):
		s.addLink(linkOf(text))
		return true, nil
	case addressLine.MatchString(text):
		return true, s.oneLine(text)
	case text[0] == ' ' || text[0] == '\t':
		return true, s.continued(text)
	case routeLine.MatchString(text):
		return true, s.routeLine(text)
	}
	return false, nil
}

// clip shortens a line for a message.
func clip(text string) string {
	const longest = 200
	if len(text) > longest {
		return text[:longest] + "..."
	}
	return text
}

// programs are what headings name, as people type it.
var programs = regexp.MustCompile(`\b(ip6?tables(-nft|-legacy)?-save|nft -j|ip( -[46jNds]+)* (rule|route|addr|r|ro|ru|a)|sysctl)\b`)

// heading reads a line that names the program whose output follows, such as a
// prompt with what was typed. It returns false if it names none.
func (s *scanner) heading(text string) bool {
	found := programs.FindString(text)
	if found == "" {
		return false
	}
	s.hint = hint{}
	switch {
	case strings.HasPrefix(found, "ip6"), strings.Contains(found, " -6"):
		s.hint.family = ruleset.IPv6
	case strings.HasPrefix(found, "iptables"), strings.Contains(found, " -4"), strings.HasSuffix(found, " rule"):
		s.hint.family = ruleset.IPv4
	}
	for _, backend := range []string{"legacy", "nft"} {
		if strings.HasSuffix(found, "-"+backend+"-save") {
			s.hint.backend = backend
		}
	}
	s.last = found
	s.asked[found] = true
	return true
}

// failed is what the script of Script prints under a program that fails.
const failed = "# failed"

// comment reads a comment: iptables-save says which program it is and what it left
// out, shunt rules which family follows.
func (s *scanner) comment(text string) {
	switch {
	case text == failed:
		delete(s.asked, s.last)
	case text == "# IPv4":
		s.hint = hint{family: ruleset.IPv4}
	case text == "# IPv6":
		s.hint = hint{family: ruleset.IPv6}
	case strings.HasPrefix(text, "# Warning: ") && strings.Contains(text, "tables present"),
		strings.HasPrefix(text, "# Table ") && strings.Contains(text, "is incompatible"):
		s.warnings = append(s.warnings, strings.TrimPrefix(text, "# "))
	case strings.HasPrefix(text, "# Generated by ") && s.heading(text):
		s.header = generator(text)
		s.hint.backend = "legacy"
		if strings.Contains(text, "(nf_tables)") {
			s.hint.backend = "nft"
		}
	case strings.HasPrefix(text, "# Completed on "):
	default:
		s.heading(text)
	}
}

// save reads the tables of one iptables-save: up to the last COMMIT before anything
// else follows, or before a table comes again. iptables-legacy-save prints its
// comments around each table. The routing that shunt rules prints below its tables
// belongs to them.
func (s *scanner) save() error {
	begin := save{place: s.place(), hint: s.hint}
	tables, open := map[string]bool{}, false
	at, number := s.at, s.number
	end, last := at, number
	for ; at < len(s.text); number++ {
		line, _, _ := strings.Cut(s.text[at:], "\n")
		text := strings.TrimSpace(line)
		switch {
		case open && text == "COMMIT":
			open = false
		case open, text == "", strings.HasPrefix(text, "# ip -"), strings.HasPrefix(text, "# Completed on "):
		case text[0] == '*' && !tables[text]:
			tables[text], open = true, true
		case strings.HasPrefix(text, "# Generated by ") && generator(text) == s.header:
		default:
			at = len(s.text)
			continue
		}
		at = min(at+len(line)+1, len(s.text))
		end, last = at, number
	}
	begin.text = s.text[s.at:end]
	if open {
		return begin.wrap(errors.New("a table that has no COMMIT: the output is cut short"))
	}
	s.saves = append(s.saves, begin)
	s.skipTo(end, last)
	return nil
}

// generator is the program that a comment of iptables-save names.
func generator(comment string) string {
	program, _, _ := strings.Cut(comment, " on ")
	return program
}

// skipTo makes a line the current one, of which end is the end.
func (s *scanner) skipTo(end, number int) {
	last := strings.LastIndexByte(s.text[:max(0, end-1)], '\n') + 1
	s.at, s.number = last, number
}

// json reads one value: what nft -j or ip -j prints.
func (s *scanner) json() error {
	at := s.place()
	decoder := json.NewDecoder(strings.NewReader(s.text[s.at:]))
	var raw json.RawMessage
	if err := decoder.Decode(&raw); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("it ends too early: the output is cut short")
		}
		return at.wrap(fmt.Errorf("reading JSON: %w", err))
	}
	var err error
	if raw[0] == '{' {
		var all struct {
			Nftables []map[string]json.RawMessage
			Native
		}
		err = json.Unmarshal(raw, &all)
		switch {
		case err != nil:
		case all.Sets != nil && s.native == nil:
			s.native, s.listeners = all.Sets, all.Listeners
		case all.Sets != nil:
			err = errors.New("a second output of shunt-init dump; accepted: one pod")
		default:
			err = s.addListing(at, all.Nftables)
		}
	} else {
		err = s.addObjects(at, raw)
	}
	if err != nil {
		return at.wrap(err)
	}
	end := s.at + int(decoder.InputOffset())
	s.number += strings.Count(s.text[s.at:end], "\n")
	rest, _, _ := strings.Cut(s.text[end:], "\n")
	if strings.TrimSpace(rest) != "" {
		return &Error{s.file, s.number, fmt.Errorf("%q: it follows JSON on its line; %s", clip(rest), accepted)}
	}
	s.skipTo(min(end+len(rest)+1, len(s.text)), s.number)
	return nil
}

// Native are the native rules of nf_tables as shunt-init dump prints them: Shunt's,
// whose party is "", and those of others.
type Native struct {
	Sets []ruleset.RuleSet `json:"nativeRules"`
	// Listeners are the sockets of the pod that take connections or datagrams; nil if
	// the kernel does not tell.
	Listeners []Listener `json:"listeners"`
}

func (s *scanner) addListing(at place, objects []map[string]json.RawMessage) error {
	if objects == nil {
		return fmt.Errorf("it has no member nftables; %s", accepted)
	}
	if s.listing != nil {
		return fmt.Errorf("a second listing of nft, after that of %s; accepted: one", s.listingAt)
	}
	var err error
	s.listingAt = at
	s.listing, err = parseListing(objects)
	return err
}
