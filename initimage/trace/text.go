package trace

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Text prints answers for people: a single journey step by step, and more of them
// as a table.
func Text(out io.Writer, answers []Answer) error {
	for i, answer := range answers {
		if i > 0 {
			fmt.Fprintln(out)
		}
		printer := printer{out: out}
		printer.pod(answer.Pod)
		if len(answer.Paths) == 1 {
			printer.journey(&answer.Paths[0].Journey)
		} else {
			printer.table(answer)
		}
		printer.live(answer.Pod.Live)
		if printer.err != nil {
			return fmt.Errorf("print the journey: %w", printer.err)
		}
	}
	return nil
}

// printer prints until it fails.
type printer struct {
	out io.Writer
	err error
}

func (p *printer) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.out, format, args...)
	}
}

// pod prints whose rules are walked, and what of them was made up or not read.
func (p *printer) pod(pod Pod) {
	p.printf("# %s\n", pod.Name)
	var invented []string
	for i := range pod.Sides {
		side := &pod.Sides[i]
		if side.Invented {
			invented = append(invented, text(side.Address()))
		}
		for _, line := range side.Unread {
			p.printf("# %s: not understood: %s\n", side.Family, line)
		}
	}
	for _, line := range pod.Drift {
		p.printf("# Not as the pod asks for: %s\n", line)
	}
	if len(invented) > 0 {
		p.printf("# No running pod is asked: its addresses %s, and those of others, are examples.\n", strings.Join(invented, " and "))
	}
}

// journey prints a journey, and each way on where it forks.
func (p *printer) journey(j *Journey) {
	question := j.Connection.Packet
	if len(j.Legs) > 0 {
		question = j.Legs[0].Packet // its source is known
	}
	p.printf("\n%s\n", Describe(question))
	p.verdict(j)
	p.legs(j, 0, "")
}

// legs prints the legs of a journey from one on. Where it forks, both ways begin
// with the leg that forks; they are called A and B, the ways of A then AA and AB.
func (p *printer) legs(j *Journey, first int, way string) {
	for i := first; i < len(j.Legs); i++ {
		p.leg(&j.Legs[i], i+1)
	}
	if j.Fork == nil {
		return
	}
	rule := Place(j.Fork.Rule)
	p.printf("\nWay %sA: %s matches\n", way, rule)
	p.verdict(&j.Fork.If)
	p.legs(&j.Fork.If, len(j.Legs)-1, way+"A")
	p.printf("\nWay %sB: %s does not match\n", way, rule)
	p.verdict(&j.Fork.Unless)
	p.legs(&j.Fork.Unless, len(j.Legs)-1, way+"B")
}

// verdict prints how a journey ends.
func (p *printer) verdict(j *Journey) {
	if len(j.Unread) > 0 {
		p.printf("   Not certain: what the source has besides is not understood, and may send it another way.\n")
	}
	if j.End.Kind != EndApp && j.End.Kind != EndOutside {
		p.printf("=> %s: %s.\n", strings.ToUpper(string(j.End.Kind)), j.End.Text)
		return
	}
	through := "directly, not through the proxy"
	if j.End.Proxied {
		through = "through the proxy"
	}
	p.printf("=> %s, %s.\n", capital(j.End.Text), through)
	p.printf("   Because: %s.\n", j.because())
	if j.End.Sees.IsValid() {
		p.printf("   The receiver sees %s as its client.\n", j.End.Sees)
	}
}

// leg prints a packet's way, hook by hook.
func (p *printer) leg(l *Leg, number int) {
	p.printf("\n%d. %s: %s\n", number, l.Title, Describe(l.Packet))
	for h, hook := range l.Path.Hooks {
		switch {
		case hook.Name == ruleset.RoutingHook:
			p.printf("   %-12s %s\n", "routing", hook.Route)
		case len(hook.Passes) == 0:
			p.printf("   %-12s no rules\n", hook.Name)
		}
		for i := range hook.Passes {
			p.pass(l, h, i)
		}
	}
	p.printf("   %s\n", l.Outcome)
}

// pass prints the way through one base chain, the number-th of a hook.
func (p *printer) pass(l *Leg, hook, number int) {
	at := l.Path.Hooks[hook]
	pass, name := at.Passes[number], at.Name
	if number > 0 {
		name = ""
	}
	p.printf("   %-12s %s\n", name, passed(pass))
	deciding, decided := l.deciding()
	for m, met := range pass.Met {
		if met.Number == 0 && met.Depth == 0 && (m == 0 || met.Rule.Target != ruleset.Drop) {
			continue // passed has said it, or nothing is to be said
		}
		decides, mark := decided && deciding == place{hook, number, m}, ""
		switch {
		case decides && l.Path.Undecided != nil:
			mark = "   <== it is not known whether this rule matches"
		case decides:
			mark = "   <== this rule decides"
		}
		p.printf("   %-12s %s%s%s\n", "", strings.Repeat("  ", met.Depth+1), line(met, pass.Met[:m]), mark)
		if decides && met.Rule.Comment != "" {
			p.printf("   %-12s %s%s\n", "", strings.Repeat("  ", met.Depth+3), met.Rule)
		}
	}
	for _, change := range pass.Changes {
		p.printf("   %-12s   the packet's %s is now %s, was %s\n", "", change.Field, change.After, change.Before)
	}
}

// passed says of a base chain whether any rule of it accepted the packet.
func passed(pass ruleset.Pass) string {
	name := pass.Table + " " + pass.Chain
	switch {
	case pass.Skipped != "":
		return name + ": not asked: " + pass.Skipped
	case len(pass.Met) == 1 && pass.Met[0].Number == 0 && pass.Met[0].Depth == 0:
		return fmt.Sprintf("%s: %s", name, none(pass.Met[0]))
	}
	return name
}

// none says that a chain ended without a rule that ends it.
func none(met ruleset.Met) string {
	then := ""
	switch {
	case met.Rule.Target == ruleset.Drop:
		then = ", and its policy drops the packet"
	case met.Depth > 0:
		then = ", back to the chain before"
	}
	switch met.Of {
	case 0:
		return "no rules" + then
	case 1:
		return "its one rule does not match" + then
	}
	return fmt.Sprintf("none of its %d rules matches%s", met.Of, then)
}

// line is one rule that accepted the packet, or the end of a chain.
func line(met ruleset.Met, before []ruleset.Met) string {
	place := fmt.Sprintf("rule %d of %d", met.Number, met.Of)
	if met.Depth > 0 {
		place = met.Chain + " " + place
	}
	switch {
	case met.Number == 0 && slices.ContainsFunc(before, func(m ruleset.Met) bool { return m.Number > 0 && m.Chain == met.Chain }):
		if met.Depth == 0 {
			return "end of the chain: its policy drops the packet"
		}
		return met.Chain + ": end of the chain, back to the chain before"
	case met.Number == 0:
		return met.Chain + ": " + none(met)
	case met.Rule.Comment == "":
		return place + ": " + met.Rule.String() + counted(met.Rule)
	}
	return fmt.Sprintf("%s: %s -> %s%s", place, Reason(met.Step), Does(met.Rule), counted(met.Rule))
}

// counted says how many packets a rule has counted, where that is known.
func counted(r ruleset.Rule) string {
	switch {
	case r.Packets == nil:
		return ""
	case *r.Packets == 1:
		return "   (1 packet so far)"
	}
	return fmt.Sprintf("   (%d packets so far)", *r.Packets)
}

// Describe prints a packet for people.
func Describe(packet ruleset.Packet) string {
	var words []string
	if packet.Src.IsValid() {
		words = append(words, endpoint(packet.Src, packet.SrcPort), "->")
	} else {
		words = append(words, "to")
	}
	words = append(words, endpoint(packet.Dst, packet.DstPort))
	text := packet.Protocol + " " + strings.Join(words, " ")
	if packet.Direction == ruleset.In && packet.Interface != "" {
		text += ", in by " + packet.Interface
	}
	if packet.Direction == ruleset.Out {
		text += fmt.Sprintf(", uid %d, gid %d", packet.UID, packet.GID)
	}
	if packet.Mark != 0 {
		text += fmt.Sprintf(", mark %#x", packet.Mark)
	}
	if packet.ConnMark != 0 {
		text += fmt.Sprintf(", connection mark %#x", packet.ConnMark)
	}
	return text
}

// endpoint prints an address and, if it is known, a port.
func endpoint(addr netip.Addr, port uint16) string {
	if port == 0 {
		return addr.String()
	}
	return netip.AddrPortFrom(addr, port).String()
}

// table prints one path a line, under its family.
func (p *printer) table(answer Answer) {
	for _, family := range ruleset.Families {
		var rows []Path
		for _, path := range answer.Paths {
			if path.Family == family {
				rows = append(rows, path)
			}
		}
		if len(rows) == 0 {
			continue
		}
		p.printf("\n%s\n", family)
		table := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "PATH\tCONNECTION\tWAY\tSEEN FROM\tBECAUSE")
		for _, path := range rows {
			j := path.Journey
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", path.Name, path.what(), j.Way(), seen(j), j.because())
		}
		if err := table.Flush(); err != nil && p.err == nil {
			p.err = err
		}
	}
	p.printf("\nSEEN FROM is the address that the receiver sees. Ask for one of them with --from and --to to see each step.\n")
}

// what says which connections a path stands for.
func (p Path) what() string {
	switch {
	case len(p.Journey.Legs) == 0:
		return p.About
	case len(p.Like) == 0:
		return p.About + ": " + shortly(p.Journey.Connection.Packet)
	}
	return p.About + ": " + p.like()
}

func shortly(packet ruleset.Packet) string {
	return packet.Protocol + " " + endpoint(packet.Dst, packet.DstPort)
}

// Way says in a few words where a journey leads.
func (j Journey) Way() string {
	through := "direct"
	if j.End.Proxied {
		through = "proxy"
		i := slices.IndexFunc(j.Legs, func(l Leg) bool {
			return l.Path.Outcome.Fate == ruleset.Redirected || l.Path.Outcome.Fate == ruleset.TProxied
		})
		if i >= 0 {
			through = fmt.Sprintf("proxy :%d", j.Legs[i].Path.Outcome.Port)
		}
	}
	switch j.End.Kind {
	case EndApp:
		return through + " -> app"
	case EndOutside:
		return through + " -> outside"
	case EndUnknown:
		if j.Fork != nil {
			return "UNKNOWN: " + strings.Join(j.ways(), " or ")
		}
	}
	return strings.ToUpper(string(j.End.Kind))
}

// ways are those of a journey that forks, each once.
func (j Journey) ways() []string {
	if j.Fork == nil {
		return []string{j.Way()}
	}
	ways := j.Fork.If.ways()
	for _, way := range j.Fork.Unless.ways() {
		if !slices.Contains(ways, way) {
			ways = append(ways, way)
		}
	}
	return ways
}

func seen(j Journey) string {
	if !j.End.Sees.IsValid() {
		return "-"
	}
	return j.End.Sees.String()
}
