package ruleset

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// LineError is a line of a text that cannot be read.
type LineError struct {
	Line int // from 1
	Text string
	Err  error
}

// Error names the line.
func (e *LineError) Error() string { return fmt.Sprintf("line %d: %q: %s", e.Line, e.Text, e.Err) }

// Unwrap returns what is wrong with the line.
func (e *LineError) Unwrap() error { return e.Err }

// Parse reads what iptables-save writes, with or without counters, and the routing
// lines that String adds. It keeps matches and targets that this package does not
// understand as they are. A line of any other form is a LineError.
func Parse(family Family, text string) (RuleSet, error) {
	reader := parser{set: RuleSet{Family: family}, tables: map[string]*parsedTable{}}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if err := reader.line(line); err != nil {
			return RuleSet{}, &LineError{number, line, err}
		}
	}
	if reader.open != nil {
		return RuleSet{}, fmt.Errorf("table %q has no COMMIT", reader.open.Name)
	}
	for _, name := range reader.order {
		table := reader.tables[name]
		table.resolveJumps()
		reader.set.Tables = append(reader.set.Tables, table.Table)
	}
	reader.set.Canonical()
	return reader.set, nil
}

// parser reads one text. It finds chains by name in constant time: strangers write
// what is parsed, and others' rules have thousands of chains.
type parser struct {
	set    RuleSet
	tables map[string]*parsedTable
	order  []string     // of the tables
	open   *parsedTable // the one that the next line is in; nil outside
}

// parsedTable is a table, and where its chains are.
type parsedTable struct {
	Table
	places map[string]int
}

// line reads one line.
func (p *parser) line(line string) (err error) {
	switch {
	case strings.HasPrefix(line, "#"):
		p.set.Routing.parseLine(p.set.Family, strings.TrimSpace(strings.TrimPrefix(line, "#")))
		return nil
	case line == "":
		return nil
	case strings.HasPrefix(line, "*"):
		if p.open != nil {
			return fmt.Errorf("table %q is still open", p.open.Name)
		}
		return p.openTable(line[1:])
	case p.open == nil:
		return fmt.Errorf("outside a table")
	case line == "COMMIT":
		p.open = nil
		return nil
	case strings.HasPrefix(line, ":"):
		return p.open.declare(line[1:])
	default:
		return p.open.addRule(p.set.Family, line)
	}
}

// openTable opens the named table; one that was committed before is continued.
func (p *parser) openTable(name string) error {
	if !slices.Contains(tableOrder, name) {
		return fmt.Errorf("unknown table %q", name)
	}
	if p.tables[name] == nil {
		p.tables[name] = &parsedTable{Table: Table{Name: name}, places: map[string]int{}}
		p.order = append(p.order, name)
	}
	p.open = p.tables[name]
	return nil
}

// declare reads ":CHAIN POLICY [packets:bytes]".
func (t *parsedTable) declare(line string) error {
	fields := strings.Fields(line)
	if len(fields) < 2 || len(fields) > 3 {
		return fmt.Errorf("a chain is declared by its name, its policy and counters")
	}
	if _, declared := t.places[fields[0]]; declared {
		return fmt.Errorf("chain %q is declared twice", fields[0])
	}
	c := Chain{Name: fields[0]}
	if fields[1] != "-" {
		c.Policy = fields[1]
	}
	if c.Builtin() != (c.Policy != "") {
		return fmt.Errorf("built-in chains have a policy, and no others")
	}
	t.append(c)
	return nil
}

func (t *parsedTable) append(c Chain) {
	t.places[c.Name] = len(t.Chains)
	t.Chains = append(t.Chains, c)
}

// addRule reads "-A CHAIN rule", after the counters of iptables-save -c.
func (t *parsedTable) addRule(family Family, line string) error {
	words, err := split(line)
	if err != nil {
		return err
	}
	var packets *uint64
	if len(words) > 0 && strings.HasPrefix(words[0], "[") {
		packets = countOf(words[0])
		words = words[1:]
	}
	if len(words) < 2 || words[0] != "-A" {
		return fmt.Errorf("neither a table, a chain, a rule (-A) nor COMMIT")
	}
	c := Chain{Name: words[1]}
	if _, declared := t.places[c.Name]; !declared {
		if !c.Builtin() {
			return fmt.Errorf("no chain %q", c.Name)
		}
		t.append(c)
	}
	rule, err := parseRule(family, words[2:])
	if err != nil {
		return err
	}
	rule.Packets = packets
	chain := &t.Chains[t.places[c.Name]]
	chain.Rules = append(chain.Rules, rule)
	return nil
}

// countOf reads the packets of "[packets:bytes]"; nil if it is something else.
func countOf(word string) *uint64 {
	text, _, _ := strings.Cut(strings.TrimPrefix(word, "["), ":")
	packets, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return nil
	}
	return &packets
}

// resolveJumps turns jumps to chains that do not exist into opaque targets: "-j
// LOG" looks like a jump.
func (t *parsedTable) resolveJumps() {
	for _, c := range t.Chains {
		for i, r := range c.Rules {
			if jump, ok := r.Target.(Jump); ok {
				if _, exists := t.places[jump.Chain]; !exists {
					c.Rules[i].Target = OpaqueTarget{jump.args()}
				}
			}
		}
	}
}

// split cuts a line into words as iptables-restore does: at blanks outside
// quotation marks. A backslash keeps the next character as it is.
func split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quoted, escaped := false, false, false
	for _, char := range line {
		switch {
		case escaped:
			word.WriteRune(char)
			escaped = false
		case char == '\\' && quoted:
			escaped = true
		case char == '"':
			quoted, inWord = !quoted, true
		case (char == ' ' || char == '\t') && !quoted:
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			word.WriteRune(char)
			inWord = true
		}
	}
	if quoted || escaped {
		return nil, fmt.Errorf("a quotation mark is not closed")
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
