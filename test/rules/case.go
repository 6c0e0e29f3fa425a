package rules

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/txtar"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Case is one file of the corpus. Its sections:
//
//	args     the arguments of shunt-init; '' is an empty one
//	v4, v6   the wanted rules (written by go test ./test/rules -update)
//	packets  packets and their fates, walked and crossed by real connections
//	walk     packets that only the walker follows
//	error    what is wrong with the arguments, instead of all the above
type Case struct {
	Name    string
	Path    string
	Archive *txtar.Archive
	Args    []string
	Packets []Crossing // of section packets
	Walk    []Crossing // of section walk
}

// Crossing is a packet and where it has to end.
type Crossing struct {
	Text   string
	Packet ruleset.Packet
	Want   ruleset.Outcome
}

// Pod is the host that the packets of all cases meet: the pod of the reference
// network.
var Pod = ruleset.Host{
	Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
	Uplink:    "eth0",
}

// Client is the default source of inbound packets.
var Client = map[ruleset.Family]netip.Addr{
	ruleset.IPv4: netip.MustParseAddr("10.0.0.9"),
	ruleset.IPv6: netip.MustParseAddr("fd00::9"),
}

// Load reads the corpus from a folder, in the order of its file names.
func Load(dir string) ([]Case, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil {
		return nil, fmt.Errorf("listing the cases: %w", err)
	}
	slices.Sort(paths)
	cases := make([]Case, 0, len(paths))
	for _, path := range paths {
		c, err := load(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		cases = append(cases, c)
	}
	return cases, nil
}

func load(path string) (Case, error) {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		return Case{}, fmt.Errorf("reading: %w", err)
	}
	loaded := Case{Name: strings.TrimSuffix(filepath.Base(path), ".txtar"), Path: path, Archive: archive}
	for _, section := range archive.Files {
		switch section.Name {
		case "args":
			loaded.Args = arguments(string(section.Data))
		case "packets":
			loaded.Packets, err = crossings(string(section.Data))
		case "walk":
			loaded.Walk, err = crossings(string(section.Data))
		case "v4", "v6", "error":
		default:
			err = fmt.Errorf("unknown section %q", section.Name)
		}
		if err != nil {
			return Case{}, err
		}
	}
	return loaded, nil
}

// Section returns a section's text, and whether the case has it.
func (c Case) Section(name string) (text string, ok bool) {
	for _, f := range c.Archive.Files {
		if f.Name == name {
			return string(f.Data), true
		}
	}
	return "", false
}

// SetSection replaces a section's text, or adds it at the end.
func (c Case) SetSection(name, text string) {
	for i := range c.Archive.Files {
		if c.Archive.Files[i].Name == name {
			c.Archive.Files[i].Data = []byte(text)
			return
		}
	}
	c.Archive.Files = append(c.Archive.Files, txtar.File{Name: name, Data: []byte(text)})
}

// Refused reports whether shunt-init must refuse the case's arguments.
func (c Case) Refused() bool {
	_, refused := c.Section("error")
	return refused
}

// Spec parses the arguments.
func (c Case) Spec() (interception.Spec, interception.Options, error) {
	return interception.ParseArgs(c.Args)
}

func arguments(text string) []string {
	words := strings.Fields(text)
	for i, word := range words {
		words[i] = strings.Trim(word, "'")
	}
	return words
}

// crossings reads lines of a packet, an arrow and an outcome.
func crossings(text string) ([]Crossing, error) {
	var all []Crossing
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		sent, outcome, found := strings.Cut(line, "->")
		if !found {
			return nil, fmt.Errorf("%q: no arrow", line)
		}
		packet, err := ruleset.ParsePacket(sent)
		if err != nil {
			return nil, err
		}
		if packet.Direction == ruleset.In && !packet.Src.IsValid() {
			packet.Src = Client[packet.Family]
		}
		want, err := ruleset.ParseOutcome(outcome)
		if err != nil {
			return nil, err
		}
		all = append(all, Crossing{Text: line, Packet: packet, Want: want})
	}
	return all, nil
}
