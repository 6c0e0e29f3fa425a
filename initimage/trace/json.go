package trace

import (
	"encoding/json"
	"net/netip"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// The JSON form has names of its own, which programs rely on.

type journeyJSON struct {
	From   Actor      `json:"from"`
	Packet packetJSON `json:"packet"`
	Legs   []legJSON  `json:"legs"`
	End    endJSON    `json:"end"`
	// Because is why the first leg goes where it goes.
	Because string    `json:"because"`
	Fork    *forkJSON `json:"fork,omitempty"`
	Unread  []string  `json:"unread,omitempty"`
}

type packetJSON struct {
	Direction ruleset.Direction `json:"direction"`
	Family    ruleset.Family    `json:"family"`
	Protocol  string            `json:"protocol"`
	Src       string            `json:"src"`
	SrcPort   uint16            `json:"srcPort,omitempty"`
	Dst       string            `json:"dst"`
	DstPort   uint16            `json:"dstPort"`
	UID       *uint32           `json:"uid,omitempty"`
	GID       *uint32           `json:"gid,omitempty"`
	Mark      uint32            `json:"mark,omitempty"`
	ConnMark  uint32            `json:"connMark,omitempty"`
	Interface string            `json:"interface,omitempty"`
	State     ruleset.State     `json:"state"`
}

type legJSON struct {
	Title   string       `json:"title"`
	From    Actor        `json:"from"`
	Answer  bool         `json:"answer,omitempty"`
	Packet  packetJSON   `json:"packet"`
	Hooks   []hookJSON   `json:"hooks"`
	Fate    ruleset.Fate `json:"fate"`
	Port    uint16       `json:"port,omitempty"`
	Outcome string       `json:"outcome"`
	Why     string       `json:"why"` // it goes there
	Decides *ruleJSON    `json:"decides,omitempty"`
}

type hookJSON struct {
	Name   string     `json:"name"`
	Packet packetJSON `json:"packet"`
	In     string     `json:"in,omitempty"`
	Out    string     `json:"out,omitempty"`
	Route  string     `json:"route,omitempty"`
	Passes []passJSON `json:"passes,omitempty"`
}

type passJSON struct {
	Table   string       `json:"table"`
	Chain   string       `json:"chain"`
	Foreign bool         `json:"foreign,omitempty"`
	Skipped string       `json:"skipped,omitempty"`
	Met     []ruleJSON   `json:"met,omitempty"`
	Changes []changeJSON `json:"changes,omitempty"`
}

type changeJSON struct {
	Field  string `json:"field"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// ruleJSON is a rule that accepted the packet; with number 0 the end of a chain.
type ruleJSON struct {
	Table   string `json:"table"`
	Chain   string `json:"chain"`
	Number  int    `json:"number"`
	Of      int    `json:"of,omitempty"`
	Depth   int    `json:"depth,omitempty"`
	Rule    string `json:"rule"`
	Reason  string `json:"reason"`
	Does    string `json:"does"`
	Foreign bool   `json:"foreign,omitempty"`
	Decides bool   `json:"decides,omitempty"`
}

type endJSON struct {
	Kind    EndKind `json:"kind"`
	Proxied bool    `json:"proxied"`
	Sees    string  `json:"sees,omitempty"`
	Text    string  `json:"text"`
}

type forkJSON struct {
	Rule   ruleJSON    `json:"rule"`
	If     journeyJSON `json:"if"`
	Unless journeyJSON `json:"unless"`
}

// MarshalJSON writes the journey as programs read it.
func (j Journey) MarshalJSON() ([]byte, error) { return json.Marshal(j.json()) }

func (j Journey) json() journeyJSON {
	form := journeyJSON{
		From: j.Connection.From, Packet: packetForm(j.Connection.Packet), Unread: j.Unread, Because: j.because(), Legs: []legJSON{},
		End: endJSON{j.End.Kind, j.End.Proxied, text(j.End.Sees), j.End.Text},
	}
	for i := range j.Legs {
		form.Legs = append(form.Legs, j.Legs[i].json())
	}
	if j.Fork != nil {
		form.Fork = &forkJSON{ruleForm(j.Fork.Rule), j.Fork.If.json(), j.Fork.Unless.json()}
	}
	return form
}

func (l *Leg) json() legJSON {
	form := legJSON{
		Title: l.Title, From: l.From, Answer: l.Answer, Packet: packetForm(l.Packet),
		Fate: l.Path.Outcome.Fate, Port: l.Path.Outcome.Port, Outcome: l.Outcome, Why: l.why(), Hooks: []hookJSON{},
	}
	if l.Decides != nil {
		rule := ruleForm(*l.Decides)
		form.Decides = &rule
	}
	deciding, decided := l.deciding()
	for h, hook := range l.Path.Hooks {
		at := hookJSON{Name: hook.Name, Packet: packetForm(hook.Packet), In: hook.In, Out: hook.Out, Route: hook.Route}
		for p, pass := range hook.Passes {
			through := passJSON{Table: pass.Table, Chain: pass.Chain, Foreign: pass.Foreign, Skipped: pass.Skipped}
			for m, met := range pass.Met {
				rule := ruleForm(met.Step)
				rule.Of, rule.Depth, rule.Decides = met.Of, met.Depth, decided && deciding == place{h, p, m}
				through.Met = append(through.Met, rule)
			}
			for _, change := range pass.Changes {
				through.Changes = append(through.Changes, changeJSON(change))
			}
			at.Passes = append(at.Passes, through)
		}
		form.Hooks = append(form.Hooks, at)
	}
	return form
}

func ruleForm(step ruleset.Step) ruleJSON {
	return ruleJSON{
		Table: step.Table, Chain: step.Chain, Number: step.Number, Rule: step.Rule.String(),
		Reason: Reason(step), Does: Does(step.Rule), Foreign: step.Foreign,
	}
}

func packetForm(p ruleset.Packet) packetJSON {
	form := packetJSON{
		Direction: p.Direction, Family: p.Family, Protocol: p.Protocol, Src: text(p.Src), SrcPort: p.SrcPort,
		Dst: text(p.Dst), DstPort: p.DstPort, Mark: p.Mark, ConnMark: p.ConnMark, Interface: p.Interface, State: p.State,
	}
	if p.State == "" {
		form.State = ruleset.New
	}
	if p.Direction == ruleset.Out {
		form.UID, form.GID = &p.UID, &p.GID
	}
	return form
}

// text prints an address; "" for none.
func text(addr netip.Addr) string {
	if !addr.IsValid() {
		return ""
	}
	return addr.String()
}

type documentJSON struct {
	Pods []podJSON `json:"pods"`
}

type podJSON struct {
	Name  string     `json:"name"`
	Drift []string   `json:"drift,omitempty"`
	Live  *liveJSON  `json:"live,omitempty"`
	Proxy proxyJSON  `json:"proxy"`
	Sides []sideJSON `json:"sides"`
	Paths []pathJSON `json:"paths"`
}

type liveJSON struct {
	From      string      `json:"from,omitempty"`
	To        string      `json:"to"`
	Failure   string      `json:"failure,omitempty"`
	Counted   []countJSON `json:"counted"`
	Log       []string    `json:"log,omitempty"`
	LogUnread string      `json:"logUnread,omitempty"`
}

type countJSON struct {
	Family  ruleset.Family `json:"family"`
	Rule    string         `json:"rule"`
	Packets uint64         `json:"packets"`
}

func liveForm(l *Live) *liveJSON {
	if l == nil {
		return nil
	}
	form := &liveJSON{To: l.To.String(), Failure: l.Failure, Counted: []countJSON{}, Log: l.Log, LogUnread: l.LogUnread}
	if l.From.IsValid() {
		form.From = l.From.String()
	}
	for _, count := range l.Counted {
		form.Counted = append(form.Counted, countJSON{count.Family, count.Rule.String(), count.Packets})
	}
	return form
}

type proxyJSON struct {
	UID         uint32 `json:"uid"`
	GID         uint32 `json:"gid"`
	Mark        uint32 `json:"mark,omitempty"`
	MarkAll     bool   `json:"markAll,omitempty"`
	OwnMark     uint32 `json:"ownMark,omitempty"`
	Inbound     uint16 `json:"inbound,omitempty"`
	Outbound    uint16 `json:"outbound,omitempty"`
	DNS         uint16 `json:"dns,omitempty"`
	Transparent bool   `json:"transparent"`
}

type sideJSON struct {
	Family    ruleset.Family `json:"family"`
	Addresses []string       `json:"addresses"`
	Uplink    string         `json:"uplink"`
	Invented  bool           `json:"invented,omitempty"`
	Unread    []string       `json:"unread,omitempty"`
}

type pathJSON struct {
	Name    string         `json:"name,omitempty"`
	About   string         `json:"about,omitempty"`
	Family  ruleset.Family `json:"family"`
	Like    []string       `json:"like,omitempty"`
	Way     string         `json:"way"`
	Journey Journey        `json:"journey"`
}

// Document returns answers as programs read them: a value for encoding/json.
func Document(answers []Answer) any {
	document := documentJSON{Pods: []podJSON{}}
	for _, answer := range answers {
		form := podJSON{
			Name: answer.Pod.Name, Drift: answer.Pod.Drift, Live: liveForm(answer.Pod.Live), Proxy: proxyJSON(answer.Pod.Proxy),
			Paths: []pathJSON{}, Sides: []sideJSON{},
		}
		for i := range answer.Pod.Sides {
			side := &answer.Pod.Sides[i]
			at := sideJSON{
				Family: side.Family, Uplink: side.Host.Uplink, Invented: side.Invented, Unread: side.Unread, Addresses: []string{},
			}
			for _, addr := range side.Walked().Addresses {
				if side.Family.Of(addr) {
					at.Addresses = append(at.Addresses, addr.String())
				}
			}
			form.Sides = append(form.Sides, at)
		}
		for _, path := range answer.Paths {
			form.Paths = append(form.Paths, pathJSON{path.Name, path.About, path.Family, path.Like, path.Journey.Way(), path.Journey})
		}
		document.Pods = append(document.Pods, form)
	}
	return document
}
