package trace

import (
	"net/netip"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Live is a connection that was really made, and what came of it.
type Live struct {
	From, To netip.AddrPort
	Failure  string   // why it was not made; "" if it was
	Counted  []Count  // the rules that counted packets meanwhile, of whichever connection
	Log      []string // lines of the proxy's log that name the connection
	// LogUnread is why the log was not looked at; "" if it was.
	LogUnread string
}

// Count is how many packets a rule has counted.
type Count struct {
	Family  ruleset.Family
	Rule    ruleset.Step
	Packets uint64
}

// live prints a connection that was made.
func (p *printer) live(l *Live) {
	if l == nil {
		return
	}
	p.printf("\nA real connection to %s", l.To)
	if l.Failure != "" {
		p.printf(" failed: %s\n", l.Failure)
	} else {
		p.printf(" was made, from %s. That it was made may be the proxy's doing: it answers before it has a connection itself.\n", l.From)
	}
	if len(l.Counted) == 0 {
		p.printf("   No rule has counted a packet meanwhile.\n")
	} else {
		p.printf("   Meanwhile these rules have counted packets, of this connection or of others:\n")
	}
	for _, count := range l.Counted {
		p.printf("   %5d  %s %s\n", count.Packets, count.Family, count.Rule)
	}
	switch {
	case l.Failure != "": // the proxy has no connection either, or none that can be found
	case l.LogUnread != "":
		p.printf("   The proxy's log was not read: %s\n", l.LogUnread)
	case len(l.Log) == 0:
		p.printf("   The proxy's log has no line about it. Envoy writes the line when the connection has ended.\n")
	}
	for _, line := range l.Log {
		p.printf("   The proxy's log: %s\n", line)
	}
}
