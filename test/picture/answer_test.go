package picture

import (
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
)

// journey is what `shunt trace -o json` prints of one.
type journey struct {
	From   string
	Packet packet
	Legs   []struct {
		Title, From, Fate, Outcome string
		Answer                     bool
		Packet                     packet
		Hooks                      []struct {
			Name, Route string
			Passes      []struct {
				Table, Chain, Skipped string
				Met                   []struct {
					Table, Chain, Reason, Does string
					Number                     int
				}
				Changes []struct{ Field, Before, After string }
			}
		}
	}
	End struct {
		Kind, Sees, Text string
		Proxied          bool
	}
	Fork *struct{ If, Unless journey }
}

type packet struct {
	Protocol, Src, Dst string
	SrcPort, DstPort   int
}

// path is a line of the paths that matter.
type path struct {
	Name, About string
	Family      int
	Journey     journey
}

// asked returns the paths that the command line prints of its only pod.
func asked(t *testing.T, args ...string) []path {
	t.Helper()
	var document struct{ Pods []struct{ Paths []path } }
	if err := json.Unmarshal(run(t, append([]string{"trace", "-o", "json"}, args...)...), &document); err != nil {
		t.Fatal(err)
	}
	if len(document.Pods) != 1 {
		t.Fatalf("%d pods", len(document.Pods))
	}
	return document.Pods[0].Paths
}

// told is an answer as a reader has it, from the page or from the command line.
type told struct {
	Kind, Text, Sees string
	Legs             []toldLeg
}

type toldLeg struct {
	Title, From, Packet string
	Steps               []toldStep
}

type toldStep struct {
	Place   string   // PREROUTING, routing, app
	Rules   []string // those that matched: "nat SHUNT_OUTPUT 4"
	Changes []string
}

// told returns what a reader of the command line's answer knows.
func (j journey) told() told {
	answer := told{Kind: j.End.Kind, Text: j.End.Text, Sees: j.End.Sees}
	for _, leg := range j.Legs {
		p := leg.Packet
		shown := toldLeg{
			Title: leg.Title, From: leg.From,
			Packet: fmt.Sprintf("%s → %s %s", endpoint(p.Src, p.SrcPort), endpoint(p.Dst, p.DstPort), p.Protocol),
			Steps:  []toldStep{{Place: leg.From}},
		}
		for i, hook := range leg.Hooks {
			step := toldStep{Place: hook.Name}
			if hook.Name == "ROUTING" {
				step.Place = "routing"
				if i > 0 && leg.Hooks[i-1].Name == "OUTPUT" {
					step.Place = "routing, again"
				}
			}
			for _, pass := range hook.Passes {
				for _, met := range pass.Met {
					if met.Number > 0 || met.Does == "DROP" {
						step.Rules = append(step.Rules, fmt.Sprintf("%s %s %d", met.Table, met.Chain, met.Number))
					}
				}
				for _, change := range pass.Changes {
					step.Changes = append(step.Changes, fmt.Sprintf("%s %s → %s", change.Field, change.Before, change.After))
				}
			}
			shown.Steps = append(shown.Steps, step)
		}
		answer.Legs = append(answer.Legs, shown)
	}
	return answer
}

func endpoint(addr string, port int) string {
	if port == 0 {
		return addr
	}
	return net.JoinHostPort(addr, strconv.Itoa(port))
}

// readAnswer reads the answer out of the page. The last step of a leg, at whom it
// gets to, is checked by arrivals and left out.
const readAnswer = `({
	Kind: document.getElementById("answer").dataset.kind,
	Text: document.getElementById("because").dataset.text,
	Sees: document.getElementById("seen").dataset.sees,
	Legs: [...document.querySelectorAll("#legs .leg")].map((leg) => ({
		Title: leg.querySelector("h3").lastChild.textContent,
		From: leg.dataset.from,
		Packet: leg.querySelector(".packet").textContent.replace(/ \(.*/, ""),
		Steps: [...leg.querySelectorAll("li")].filter((item) => !item.hasAttribute("data-end")).map((item) => ({
			Place: item.dataset.place,
			Rules: [...item.querySelectorAll("[data-rule]")].map((rule) => rule.dataset.rule),
			Changes: [...item.querySelectorAll(".change")].map((change) => change.textContent),
		})),
	})),
})`

// answer reads the answer that the page shows.
func (p *tab) answer() told {
	p.t.Helper()
	answer := eval[told](p, readAnswer)
	for _, leg := range answer.Legs {
		for i := range leg.Steps {
			if len(leg.Steps[i].Rules) == 0 {
				leg.Steps[i].Rules = nil
			}
			if len(leg.Steps[i].Changes) == 0 {
				leg.Steps[i].Changes = nil
			}
		}
	}
	return answer
}

// arrivals returns whom each leg of the page's answer gets to, "" for one that is
// stopped.
func (p *tab) arrivals() string {
	return strings.Join(eval[[]string](p,
		`[...document.querySelectorAll("#legs .leg")].map((leg) => leg.querySelector("[data-end]")?.dataset.place ?? "")`), " ")
}

// arrivals returns the same of the command line's answer, whose outcomes say it.
func (j journey) arrivals() string {
	var all []string
	for i, leg := range j.Legs {
		last := i == len(j.Legs)-1
		to := ""
		switch o := leg.Outcome; {
		case last && j.End.Kind == "lost", leg.Fate == "drop", leg.Fate == "reject":
		case strings.HasPrefix(o, "The proxy gets it"), strings.HasPrefix(o, "It reaches the socket of the proxy"),
			strings.HasPrefix(o, "It comes to port"):
			to = "proxy"
		case strings.HasPrefix(o, "It leaves the pod"):
			to = "outside"
		case strings.HasPrefix(o, "It reaches"):
			to = "app"
		default:
			to = "? " + o
		}
		all = append(all, to)
	}
	return strings.Join(all, " ")
}
