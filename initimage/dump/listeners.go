package dump

import (
	"slices"

	"github.com/shunt-dev/shunt/initimage/trace"
)

// Listener is a socket that takes what is sent to its port.
type Listener struct {
	Protocol string `json:"protocol"` // tcp or udp
	Port     uint16 `json:"port"`
	UID      uint32 `json:"uid"` // of who opened it
}

// noteListeners says where the rules send connections and nobody listens, or a
// process whose own connections the rules may take for the app's.
func (a *assembly) noteListeners(proxy trace.Proxy) {
	if a.listeners == nil {
		return
	}
	for _, wanted := range []Listener{{"tcp", proxy.Inbound, 0}, {"tcp", proxy.Outbound, 0}, {"tcp", proxy.DNS, 0}, {"udp", proxy.DNS, 0}} {
		if wanted.Port == 0 {
			continue
		}
		i := slices.IndexFunc(a.listeners, func(l Listener) bool { return l.Protocol == wanted.Protocol && l.Port == wanted.Port })
		switch {
		case i < 0:
			a.note("nothing listens on %s port %d, where the rules send connections: they are refused", wanted.Protocol, wanted.Port)
		case a.listeners[i].UID != proxy.UID && !proxy.MarkAll:
			a.note("what listens on %s port %d has uid %d: the rules take its own connections for the app's, unless it has gid %d",
				wanted.Protocol, wanted.Port, a.listeners[i].UID, proxy.GID)
		}
	}
}
