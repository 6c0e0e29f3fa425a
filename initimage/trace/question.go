package trace

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Question asks for a connection in the words of the command line. Its zero value
// asks nothing.
type Question struct {
	From string `json:"from,omitempty"` // app, proxy, ADDRESS, ADDRESS:PORT; "" for what is likely
	To   string `json:"to"`             // ADDRESS:PORT
	UDP  bool   `json:"udp,omitempty"`
	// UID, GID and Mark are those of the process and its socket; "" for what is
	// likely.
	UID  string `json:"uid,omitempty"`
	GID  string `json:"gid,omitempty"`
	Mark string `json:"mark,omitempty"`
}

// Check returns what is wrong with the question in any pod. Errors name the field
// as the command line does, without the dashes.
func (q Question) Check() []error {
	var errs []error
	if _, err := q.packet(); err != nil {
		errs = append(errs, err)
	}
	for _, id := range q.ids(&ruleset.Packet{}) {
		if _, err := id.value(); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// Connection returns the connection that the question asks for, in a pod.
func (q Question) Connection(pod Pod) (Connection, error) {
	if err := errors.Join(q.Check()...); err != nil {
		return Connection{}, err
	}
	packet, err := q.packet()
	if err != nil {
		return Connection{}, err
	}
	connection := Asked(pod, Actor(q.From), packet)
	for _, id := range q.ids(&connection.Packet) {
		number, err := id.value()
		switch {
		case err != nil:
			return connection, err
		case id.text == "":
		case connection.From == Outside:
			return connection, fmt.Errorf("%s: given for a connection of another host; accepted: from app, from proxy", id.name)
		default:
			*id.into = number
		}
	}
	return connection, nil
}

// id is a number of the process or its socket.
type id struct {
	name, text string
	into       *uint32
}

func (q Question) ids(p *ruleset.Packet) []id {
	return []id{{"uid", q.UID, &p.UID}, {"gid", q.GID, &p.GID}, {"mark", q.Mark, &p.Mark}}
}

func (i id) value() (uint32, error) {
	if i.text == "" {
		return 0, nil
	}
	number, err := strconv.ParseUint(i.text, 0, 32)
	if err != nil {
		return 0, fmt.Errorf("%s: invalid value %q; accepted: 0 to %d", i.name, i.text, uint32(1<<32-1))
	}
	return uint32(number), nil
}

// packet returns the packet of the question, as far as it is known without a pod.
func (q Question) packet() (ruleset.Packet, error) {
	if q.To == "" {
		return ruleset.Packet{}, errors.New("to: Required value; accepted: ADDRESS:PORT, [ADDRESS]:PORT")
	}
	to, err := netip.ParseAddrPort(q.To)
	if err != nil || to.Port() == 0 {
		return ruleset.Packet{}, fmt.Errorf("to: invalid value %q; accepted: ADDRESS:PORT, [ADDRESS]:PORT", q.To)
	}
	packet := ruleset.Packet{
		Protocol: "tcp", Family: ruleset.IPv4, Dst: to.Addr().Unmap().WithZone(""), DstPort: to.Port(),
		UID: userID, GID: userID, State: ruleset.New,
	}
	if !packet.Dst.Is4() {
		packet.Family = ruleset.IPv6
	}
	if q.UDP {
		packet.Protocol = "udp"
	}
	if q.From != "" && q.From != string(App) && q.From != string(TheProxy) {
		err = q.setSource(&packet)
	}
	return packet, err
}

// setSource sets the source of a packet of another host.
func (q Question) setSource(packet *ruleset.Packet) error {
	from, err := netip.ParseAddrPort(q.From)
	if err != nil {
		addr, err := netip.ParseAddr(q.From)
		if err != nil {
			return fmt.Errorf("from: invalid value %q; accepted: app, proxy, ADDRESS, ADDRESS:PORT", q.From)
		}
		from = netip.AddrPortFrom(addr, 0)
	}
	packet.Src, packet.SrcPort = from.Addr().Unmap().WithZone(""), from.Port()
	if !packet.Family.Of(packet.Src) {
		return fmt.Errorf("from: invalid value %q with to %s; accepted: addresses of one family", q.From, q.To)
	}
	return nil
}

// QuestionOf returns the question that asks for a connection in a pod.
func QuestionOf(pod Pod, c Connection) Question {
	packet := c.Packet
	question := Question{From: string(c.From), To: endpoint(packet.Dst, packet.DstPort), UDP: packet.Protocol == "udp"}
	if c.From == Outside {
		question.From = endpoint(packet.Src, packet.SrcPort)
		return question
	}
	likely, err := question.Connection(pod)
	for _, id := range []struct {
		given, likely uint32
		into          *string
	}{
		{packet.UID, likely.Packet.UID, &question.UID}, {packet.GID, likely.Packet.GID, &question.GID},
		{packet.Mark, likely.Packet.Mark, &question.Mark},
	} {
		if err == nil && id.given != id.likely {
			*id.into = strconv.FormatUint(uint64(id.given), 10)
		}
	}
	return question
}
