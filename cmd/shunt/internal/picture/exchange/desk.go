package exchange

import (
	"encoding/json"
	"fmt"

	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// Document is all that a page knows.
type Document struct {
	Subjects []Subject
	Asked    *trace.Question // that the page opens with; nil for the first path
}

// Subject is a pod, or one pod as several modes of interception make it.
type Subject struct {
	Name  string
	Modes []Mode
}

// Mode is a pod as one mode of interception makes it.
type Mode struct {
	Name    string // REDIRECT, TPROXY; "" where there is only one
	Current bool   // the source asks for it
	Pod     trace.Pod
	Paths   []Path // that matter; the page need not try them out
}

// Desk answers questions about the pods of a document.
type Desk struct{ document Document }

// Open reads a document.
func Open(text []byte) (*Desk, error) {
	var d Desk
	if err := json.Unmarshal(text, &d.document); err != nil {
		return nil, fmt.Errorf("read the pods: %w", err)
	}
	return &d, nil
}

// View is what the page shows of a pod before anything is asked.
type View struct {
	Name   string  `json:"name"`
	Proxy  Ports   `json:"proxy"`
	Shapes []Shape `json:"shapes"`
	Paths  []Path  `json:"paths"`
}

// Ports are those that the proxy listens on.
type Ports struct {
	Inbound  uint16 `json:"inbound"`
	Outbound uint16 `json:"outbound"`
	DNS      uint16 `json:"dns"`
}

// Path is one of the paths that matter. One that only says what was not tried has no
// question.
type Path struct {
	Name     string         `json:"name"`
	About    string         `json:"about"`
	Family   ruleset.Family `json:"family"`
	Like     []string       `json:"like,omitempty"`
	Question trace.Question `json:"question"`
	Kind     trace.EndKind  `json:"kind"`
	Proxied  bool           `json:"proxied"`
}

// View returns what the page shows of a pod.
func (d *Desk) View(subject, mode int) (View, error) {
	of, err := d.mode(subject, mode)
	if err != nil {
		return View{}, err
	}
	ports := Ports{of.Pod.Proxy.Inbound, of.Pod.Proxy.Outbound, of.Pod.Proxy.DNS}
	view := View{Name: of.Pod.Name, Proxy: ports, Shapes: []Shape{}, Paths: of.Paths}
	for _, side := range of.Pod.Sides {
		view.Shapes = append(view.Shapes, shapeOf(side))
	}
	return view, nil
}

// PathsOf returns the paths that matter of a pod as the page takes them.
func PathsOf(pod trace.Pod, matter []trace.Path) []Path {
	paths := []Path{}
	for _, path := range matter {
		end := path.Journey.End
		one := Path{Name: path.Name, About: path.About, Family: path.Family, Like: path.Like, Kind: end.Kind, Proxied: end.Proxied}
		if connection := path.Journey.Connection; connection.From != "" {
			one.Question = trace.QuestionOf(pod, connection)
		}
		paths = append(paths, one)
	}
	return paths
}

// Ask follows a connection.
func (d *Desk) Ask(subject, mode int, question trace.Question) (trace.Journey, error) {
	of, err := d.mode(subject, mode)
	if err != nil {
		return trace.Journey{}, err
	}
	connection, err := question.Connection(of.Pod)
	if err != nil {
		return trace.Journey{}, err
	}
	return trace.Walk(of.Pod, connection), nil
}

func (d *Desk) mode(subject, mode int) (Mode, error) {
	if subject < 0 || subject >= len(d.document.Subjects) || mode < 0 || mode >= len(d.document.Subjects[subject].Modes) {
		return Mode{}, fmt.Errorf("the page has no pod %d in mode %d", subject, mode)
	}
	return d.document.Subjects[subject].Modes[mode], nil
}
