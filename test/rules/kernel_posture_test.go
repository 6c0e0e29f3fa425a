//go:build linux

package rules

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// ground is the reference network with the servers that distinguish postures.
type ground struct{ lab *netns.Lab }

// sights are the connections that distinguish them: from whom, to where.
var sights = []struct {
	name    string
	outside bool // opened from outside
	hop     bool // opened by the proxy to the app as in REDIRECT, bound to lo
	from    netns.Identity
	mark    uint32
	port    uint16
}{
	{name: "app to outside", from: app, port: 80},
	{name: "root to outside", port: 443},
	{name: "uid 1337 to outside", from: netns.Identity{UID: 1337, GID: 1337}, port: 80},
	{name: "mark 0x539 to outside", from: app, mark: 0x539, port: 80},
	{name: "inbound hop", hop: true, from: netns.Identity{UID: 1337, GID: 1337}, port: 8080},
	{name: "outside to the app", outside: true, port: 8080},
	{name: "outside to health", outside: true, port: 15021},
}

func newGround(t *testing.T) *ground {
	t.Helper()
	g := &ground{quietLab(t)}
	for _, port := range []uint16{interception.DefaultOutboundPort, interception.DefaultInboundPort} {
		listenBoth(t, g.lab.Pod, "tcp", port, netns.ListenOptions{
			Name: serverProxy, Identity: netns.Identity{UID: 1337, GID: 1337}, Transparent: true,
		})
	}
	for _, port := range []uint16{8080, interception.HealthPort} {
		listenBoth(t, g.lab.Pod, "tcp", port, netns.ListenOptions{Name: serverApp, Identity: app})
	}
	for _, port := range []uint16{80, 443} {
		listenBoth(t, g.lab.Outside, "tcp", port, netns.ListenOptions{Name: serverOutside, Transparent: true})
	}
	return g
}

// How long an answer is awaited. Nothing is further away than another namespace, but the machine
// may be busy.
const (
	firstLook   = 100 * time.Millisecond
	patientLook = 3 * time.Second
)

// view is where the sights of one family ended.
type view []string

func (v view) String() string { return strings.Join(v, "\n") }

// routedApart returns the view as it would be if packets with a mark ended as the others do. With a
// native table the routing of marks is there a little longer than the rules.
func (v view) routedApart(before, after view) view {
	for _, end := range []view{before, after} {
		moved := slices.Clone(v)
		for i, s := range sights {
			if s.mark != 0 && (v[i] == before[i] || v[i] == after[i]) {
				moved[i] = end[i]
			}
		}
		if slices.Equal(moved, end) {
			return moved
		}
	}
	return v
}

// Ends of a sight that reached nobody.
const (
	noRoute  = "no route"
	noAnswer = "no answer"
)

// cutOff reports whether nothing gets in or out. The pod's own host refuses what its processes send
// at once; what comes in gets no answer. A marked packet that a route keeps in the pod does not get
// out either, whoever answers it there; nor does the proxy's connection to the app, which stays in
// the pod.
func (v view) cutOff() bool {
	for i, s := range sights {
		_, end, _ := strings.Cut(v[i], ": ")
		inside := s.hop || s.mark != 0 && !strings.HasPrefix(end, serverOutside)
		if wanted := map[bool]string{true: noAnswer, false: noRoute}[s.outside]; end != wanted && !inside {
			return false
		}
	}
	return true
}

// look opens all connections of both families at once.
func (g *ground) look(t *testing.T, patience time.Duration) map[string]view {
	t.Helper()
	views := map[string]view{"v4": make(view, len(sights)), "v6": make(view, len(sights))}
	var looking sync.WaitGroup
	for family, v := range views {
		for i, s := range sights {
			looking.Go(func() {
				ns, to := g.lab.Pod, pick(family, netns.OutsideIPv4, netns.OutsideIPv6)
				o := netns.DialOptions{Identity: s.from, Mark: s.mark, Timeout: patience}
				if s.hop {
					to = pick(family, netns.PodIPv4, netns.PodIPv6)
					o.Source, o.Device = passthrough(to), "lo"
				}
				if s.outside {
					ns, to, o.Source = g.lab.Outside, pick(family, netns.PodIPv4, netns.PodIPv6), to
				}
				reply, err := ns.Ask(t.Context(), "tcp", netip.AddrPortFrom(to, s.port), o)
				v[i] = s.name + ": " + endOf(reply, err)
			})
		}
	}
	looking.Wait()
	return views
}

func endOf(reply netns.Reply, err error) string {
	switch {
	case errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.EACCES):
		return noRoute
	case netns.IsTimeout(err):
		return noAnswer
	case err != nil:
		return err.Error()
	}
	return fmt.Sprintf("%s at port %d, as %s", reply.Server, reply.Bound, reply.Local)
}
