package ruleset

import (
	"fmt"
	"strings"
)

// Parse reads what iptables-save writes, with or without counters, and the routing
// lines that String adds. It keeps matches and targets that this package does not
// understand as they are. A line of any other form is an error with its number and
// text.
func Parse(family Family, text string) (RuleSet, error) {
	set := RuleSet{Family: family}
	var table *Table
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		next, err := set.parseLine(table, line)
		if err != nil {
			return RuleSet{}, fmt.Errorf("line %d: %q: %w", number, line, err)
		}
		table = next
	}
	if table != nil {
		return RuleSet{}, fmt.Errorf("table %q has no COMMIT", table.Name)
	}
	set.resolveJumps()
	set.Canonical()
	return set, nil
}

// parseLine reads one line and returns the table that the next one is in.
func (rs *RuleSet) parseLine(table *Table, line string) (*Table, error) {
	switch {
	case strings.HasPrefix(line, "#"):
		rs.Routing.parseLine(rs.Family, strings.TrimSpace(strings.TrimPrefix(line, "#")))
		return table, nil
	case line == "":
		return table, nil
	case strings.HasPrefix(line, "*"):
		if table != nil {
			return nil, fmt.Errorf("table %q is still open", table.Name)
		}
		return rs.openTable(line[1:])
	case table == nil:
		return nil, fmt.Errorf("outside a table")
	case line == "COMMIT":
		return nil, nil
	case strings.HasPrefix(line, ":"):
		return table, table.declare(line[1:])
	default:
		return table, rs.parseRule(table, line)
	}
}

// openTable returns the named table; a table that was committed before is
// continued.
func (rs *RuleSet) openTable(name string) (*Table, error) {
	known := false
	for _, t := range tableOrder {
		known = known || t == name
	}
	if !known {
		return nil, fmt.Errorf("unknown table %q", name)
	}
	for i := range rs.Tables {
		if rs.Tables[i].Name == name {
			return &rs.Tables[i], nil
		}
	}
	rs.Tables = append(rs.Tables, Table{Name: name})
	return &rs.Tables[len(rs.Tables)-1], nil
}

// declare reads ":CHAIN POLICY [packets:bytes]".
func (t *Table) declare(line string) error {
	fields := strings.Fields(line)
	if len(fields) < 2 || len(fields) > 3 {
		return fmt.Errorf("a chain is declared by its name, its policy and counters")
	}
	if t.chain(fields[0]) != nil {
		return fmt.Errorf("chain %q is declared twice", fields[0])
	}
	c := Chain{Name: fields[0]}
	if fields[1] != "-" {
		c.Policy = fields[1]
	}
	if c.Builtin() != (c.Policy != "") {
		return fmt.Errorf("built-in chains have a policy, and no others")
	}
	t.Chains = append(t.Chains, c)
	return nil
}

// parseRule reads "-A CHAIN rule", after the counters of iptables-save -c.
func (rs *RuleSet) parseRule(table *Table, line string) error {
	words, err := split(line)
	if err != nil {
		return err
	}
	if len(words) > 0 && strings.HasPrefix(words[0], "[") {
		words = words[1:]
	}
	if len(words) < 2 || words[0] != "-A" {
		return fmt.Errorf("neither a table, a chain, a rule (-A) nor COMMIT")
	}
	if c := (Chain{Name: words[1]}); !c.Builtin() && table.chain(c.Name) == nil {
		return fmt.Errorf("no chain %q", c.Name)
	}
	rule, err := parseRule(rs.Family, words[2:])
	if err != nil {
		return err
	}
	table.add(words[1], rule)
	return nil
}

// resolveJumps turns jumps to chains that do not exist into opaque targets: "-j
// LOG" looks like a jump.
func (rs *RuleSet) resolveJumps() {
	for _, t := range rs.Tables {
		for _, c := range t.Chains {
			for i, r := range c.Rules {
				if jump, ok := r.Target.(Jump); ok && t.chain(jump.Chain) == nil {
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
