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

// Path is one of the paths that matter.
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
	pod, err := d.pod(subject, mode)
	if err != nil {
		return View{}, err
	}
	view := View{
		Name: pod.Name, Proxy: Ports{pod.Proxy.Inbound, pod.Proxy.Outbound, pod.Proxy.DNS},
		Shapes: []Shape{}, Paths: []Path{},
	}
	for _, side := range pod.Sides {
		view.Shapes = append(view.Shapes, shapeOf(side))
	}
	for _, path := range trace.Paths(pod) {
		end := path.Journey.End
		view.Paths = append(view.Paths, Path{
			path.Name, path.About, path.Family, path.Like, trace.QuestionOf(pod, path.Journey.Connection), end.Kind, end.Proxied,
		})
	}
	return view, nil
}

// Ask follows a connection.
func (d *Desk) Ask(subject, mode int, question trace.Question) (trace.Journey, error) {
	pod, err := d.pod(subject, mode)
	if err != nil {
		return trace.Journey{}, err
	}
	connection, err := question.Connection(pod)
	if err != nil {
		return trace.Journey{}, err
	}
	return trace.Walk(pod, connection), nil
}

func (d *Desk) pod(subject, mode int) (trace.Pod, error) {
	if subject < 0 || subject >= len(d.document.Subjects) || mode < 0 || mode >= len(d.document.Subjects[subject].Modes) {
		return trace.Pod{}, fmt.Errorf("the page has no pod %d in mode %d", subject, mode)
	}
	return d.document.Subjects[subject].Modes[mode].Pod, nil
}
