package proxy

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// keepalivePort is that of a server whose clients are silent for long.
const keepalivePort uint16 = 5432

// TestKeepalive checks that both of the proxy's connections are probed while they are idle, sooner
// than NATs and load balancers forget them: the app's own keepalive ends at the proxy.
func TestKeepalive(t *testing.T) {
	t.Parallel()
	const atMost = 60 * time.Second // idle until the first probe; Linux' own is two hours
	for _, mode := range []interception.Mode{interception.ModeRedirect, interception.ModeTProxy} {
		t.Run(string(mode), func(t *testing.T) {
			p := envoyPod(t, mode, nil)
			for _, d := range []direction{inbound4, inbound6, outbound4, outbound6} {
				t.Run(d.String(), func(t *testing.T) {
					w := &way{direction: d, pod: p}
					w.serve(t, keepalivePort, func(conn *net.TCPConn) error {
						_, err := io.Copy(conn, conn)
						return err
					})
					conn := w.mustDial(t, keepalivePort)
					if err := talk(conn, line); err != nil { // both connections are open
						t.Fatal(err)
					}
					sockets := p.proxySockets(t, w)
					if len(sockets) != 2 {
						t.Fatalf("the proxy has %d connections, want one from the client and one to the server: %v", len(sockets), sockets)
					}
					for _, s := range sockets {
						if s.untilProbe <= 0 || s.untilProbe > atMost {
							t.Errorf("%s -> %s: the first probe comes after %s (0 for never), want at most %s",
								s.local, s.remote, s.untilProbe, atMost)
						}
					}
				})
			}
		})
	}
}

// proxySocket is a connection of the proxy.
type proxySocket struct {
	local, remote netip.AddrPort
	untilProbe    time.Duration // 0 if the kernel will not send one
}

// proxySockets lists the proxy's connections of a way. It waits until other timers of the kernel
// are over, such as that of an unacknowledged answer.
func (p *pod) proxySockets(t *testing.T, w *way) []proxySocket {
	t.Helper()
	const established, keepaliveTimer = 1, 2 // TCP_ESTABLISHED; idiag_timer of linux/inet_diag.h
	family := uint8(unix.AF_INET)
	if w.ipv6 {
		family = unix.AF_INET6
	}
	var found []proxySocket
	within(t, "the connections of the proxy are idle", &output{}, func() bool {
		var sockets []*netlink.Socket
		err := p.Pod.Do(func() (err error) {
			sockets, err = netlink.SocketDiagTCP(family)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		found = nil
		idle := true
		for _, s := range sockets {
			if s.State != established || s.UID == appIdentity.UID {
				continue
			}
			of := proxySocket{local: endOf(s.ID.Source, s.ID.SourcePort), remote: endOf(s.ID.Destination, s.ID.DestinationPort)}
			ports := []uint16{keepalivePort, interception.DefaultInboundPort, interception.DefaultOutboundPort}
			if !slices.Contains(ports, of.local.Port()) && of.remote.Port() != keepalivePort {
				continue // of health checks and the like
			}
			if s.Timer == keepaliveTimer {
				of.untilProbe = time.Duration(s.Expires) * time.Millisecond
			} else if s.Timer != 0 {
				idle = false
			}
			found = append(found, of)
		}
		return idle
	})
	return found
}

func endOf(ip net.IP, port uint16) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(addr.Unmap(), port)
}
