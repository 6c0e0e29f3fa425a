package trace

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Mermaid prints answers as a mermaid flowchart, which GitHub and GitLab draw.
func Mermaid(out io.Writer, answers []Answer) error {
	_, err := io.WriteString(out, graphOf(answers).mermaid())
	if err != nil {
		return fmt.Errorf("print the graph: %w", err)
	}
	return nil
}

// Dot prints answers as a graph of Graphviz.
func Dot(out io.Writer, answers []Answer) error {
	_, err := io.WriteString(out, graphOf(answers).dot())
	if err != nil {
		return fmt.Errorf("print the graph: %w", err)
	}
	return nil
}

// graph is what both forms draw: boxes in frames, and arrows between the boxes.
type graph struct {
	frames []frame
	arrows []arrow
	boxes  int
}

type frame struct {
	title string
	boxes []box
}

type box struct {
	id     int
	lines  []string
	stands bool // out: it decides, or ends the journey
}

type arrow struct {
	from, to int
	text     string
}

// graphOf draws a single journey hook by hook, and of more only who sends to whom.
func graphOf(answers []Answer) *graph {
	g := &graph{}
	for _, answer := range answers {
		if len(answer.Paths) == 1 {
			g.addJourney(answer.Pod.Name, &answer.Paths[0].Journey, 0, nil)
			continue
		}
		for _, family := range ruleset.Families {
			g.addOverview(answer, family)
		}
	}
	return g
}

// addBox adds a box to the last frame.
func (g *graph) addBox(stands bool, lines ...string) int {
	g.boxes++
	in := &g.frames[len(g.frames)-1]
	in.boxes = append(in.boxes, box{g.boxes, lines, stands})
	return g.boxes
}

// addJourney adds a frame for each leg from one on, and leads to the first of them
// from a box.
func (g *graph) addJourney(title string, j *Journey, first int, last *arrow) {
	for i := first; i < len(j.Legs); i++ {
		leg := &j.Legs[i]
		g.frames = append(g.frames, frame{title: fmt.Sprintf("Step %d: %s", i+1, leg.Title)})
		at := g.addBox(false, Describe(leg.Packet))
		if last != nil {
			last.to = at
			g.arrows = append(g.arrows, *last)
		}
		deciding, decided := leg.deciding()
		for h, hook := range leg.Path.Hooks {
			next := g.addBox(decided && deciding.hook == h, hookLines(hook)...)
			g.arrows = append(g.arrows, arrow{from: at, to: next})
			at = next
		}
		end := g.addBox(false, leg.Outcome)
		g.arrows = append(g.arrows, arrow{from: at, to: end})
		last = &arrow{from: end}
	}
	g.frames = append(g.frames, frame{title: title})
	if j.Fork == nil {
		end := g.addBox(true, strings.ToUpper(string(j.End.Kind)), capital(j.End.Text)+".")
		if last != nil {
			last.to = end
			g.arrows = append(g.arrows, *last)
		}
		return
	}
	from := g.addBox(true, "It is not known whether this rule matches:", Reason(j.Fork.Rule))
	last.to = from
	g.arrows = append(g.arrows, *last)
	g.addJourney(title, &j.Fork.If, len(j.Legs)-1, &arrow{from: from, text: "if it matches"})
	g.addJourney(title, &j.Fork.Unless, len(j.Legs)-1, &arrow{from: from, text: "if it does not"})
}

// hookLines are the words in the box of a hook.
func hookLines(hook ruleset.Hook) []string {
	if hook.Name == ruleset.RoutingHook {
		return []string{"routing", hook.Route}
	}
	lines := []string{hook.Name}
	for _, pass := range hook.Passes {
		lines = append(lines, passed(pass))
		for m, met := range pass.Met {
			if met.Number > 0 {
				lines = append(lines, line(met, pass.Met[:m]))
			}
		}
	}
	if len(hook.Passes) == 0 {
		lines = append(lines, "no rules")
	}
	return lines
}

// addOverview adds a frame with the hosts and processes of one family, and an arrow
// for each way that connections go between them.
func (g *graph) addOverview(answer Answer, family ruleset.Family) {
	paths := slices.DeleteFunc(slices.Clone(answer.Paths), func(p Path) bool { return p.Family != family })
	if len(paths) == 0 {
		return
	}
	g.frames = append(g.frames, frame{title: answer.Pod.Name + ": " + family.String()})
	boxes := map[string]int{}
	place := func(name string) int {
		if boxes[name] == 0 {
			boxes[name] = g.addBox(name == "proxy", name)
		}
		return boxes[name]
	}
	for _, name := range []string{"other hosts", "proxy", "app"} {
		place(name)
	}
	for _, path := range paths {
		label := path.Name
		if len(path.Like) > 0 {
			label = path.what()
		}
		for i := range path.Journey.Legs {
			leg := &path.Journey.Legs[i]
			if leg.Answer {
				continue
			}
			from, to := place(hosts[leg.From]), place(arrival(leg, &path.Journey, i))
			known := slices.IndexFunc(g.arrows, func(a arrow) bool { return a.from == from && a.to == to })
			if known < 0 {
				g.arrows = append(g.arrows, arrow{from, to, label})
			} else if at := &g.arrows[known]; !strings.Contains(at.text+"\n", label+"\n") {
				at.text += "\n" + label
			}
		}
	}
}

var hosts = map[Actor]string{App: "app", TheProxy: "proxy", Outside: "other hosts"}

// arrival names the box that a leg leads to.
func arrival(leg *Leg, j *Journey, number int) string {
	forth := 0
	for i := range j.Legs {
		if !j.Legs[i].Answer {
			forth = i
		}
	}
	switch {
	case number < forth:
		return "proxy"
	case j.End.Kind == EndApp || j.End.Kind == EndLost && leg.Path.Answer.Direction == ruleset.Out:
		return "app"
	case j.End.Kind == EndOutside || j.End.Kind == EndLost:
		return "other hosts"
	case j.End.Kind == EndLoop:
		return "proxy"
	}
	return string(j.End.Kind)
}

func (g *graph) mermaid() string {
	var b strings.Builder
	b.WriteString("flowchart TD\n")
	var standing []string
	for i, f := range g.frames {
		fmt.Fprintf(&b, "  subgraph frame%d[\"%s\"]\n", i+1, mermaidText(f.title))
		for _, box := range f.boxes {
			fmt.Fprintf(&b, "    box%d[\"%s\"]\n", box.id, mermaidText(box.lines...))
			if box.stands {
				standing = append(standing, fmt.Sprintf("box%d", box.id))
			}
		}
		b.WriteString("  end\n")
	}
	for _, a := range g.arrows {
		text := ""
		if a.text != "" {
			text = `|"` + mermaidText(strings.Split(a.text, "\n")...) + `"|`
		}
		fmt.Fprintf(&b, "  box%d -->%s box%d\n", a.from, text, a.to)
	}
	if len(standing) > 0 {
		fmt.Fprintf(&b, "  classDef stands stroke-width:3px\n  class %s stands\n", strings.Join(standing, ","))
	}
	return b.String()
}

// mermaidEscapes are what a text in quotation marks may not hold, as mermaid's
// entities. It takes what stands in backticks for Markdown.
var mermaidEscapes = strings.NewReplacer("#", "#35;", `"`, "#quot;", "<", "#lt;", ">", "#gt;", "&", "#amp;", "`", "#96;",
	"\n", " ", "\r", " ")

func mermaidText(lines ...string) string {
	escaped := make([]string, len(lines))
	for i, line := range lines {
		escaped[i] = mermaidEscapes.Replace(line)
	}
	return strings.Join(escaped, "<br>")
}

func (g *graph) dot() string {
	var b strings.Builder
	b.WriteString("digraph trace {\n  labeljust=l\n  node [shape=box fontname=sans]\n  edge [fontname=sans]\n")
	for i, f := range g.frames {
		fmt.Fprintf(&b, "  subgraph cluster_%d {\n    label=%s fontname=sans\n", i+1, dotText(f.title))
		for _, box := range f.boxes {
			width := 1
			if box.stands {
				width = 3
			}
			fmt.Fprintf(&b, "    box%d [label=%s penwidth=%d]\n", box.id, dotText(box.lines...), width)
		}
		b.WriteString("  }\n")
	}
	for _, a := range g.arrows {
		text := ""
		if a.text != "" {
			text = " [label=" + dotText(strings.Split(a.text, "\n")...) + "]"
		}
		fmt.Fprintf(&b, "  box%d -> box%d%s\n", a.from, a.to, text)
	}
	b.WriteString("}\n")
	return b.String()
}

var dotEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", " ", "\r", " ")

// dotText quotes lines, each of which begins at the left.
func dotText(lines ...string) string {
	if len(lines) == 1 {
		return `"` + dotEscapes.Replace(lines[0]) + `"`
	}
	var b strings.Builder
	for _, line := range lines {
		b.WriteString(dotEscapes.Replace(line) + `\l`)
	}
	return `"` + b.String() + `"`
}
