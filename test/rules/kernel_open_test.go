//go:build linux

package rules

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// What happens to a connection that is open when the rules change.
const (
	goesOn = "goes on"
	reset  = "reset"
	hangs  = "hangs"
)

// openKinds are the connections that are open then: each way through the proxy, and direct.
var openKinds = []kind{
	{name: "in", outside: true, network: "tcp", to: toPod, port: 8080, way: inbound},
	{name: "out", from: app, network: "tcp", to: toOutside, port: 80, way: outbound},
	{name: "in, left alone", outside: true, network: "tcp", to: toPod, port: 15020, way: direct},
	{name: "out, left alone", from: netns.Identity{UID: 1337, GID: 1337}, network: "tcp", to: toOutside, port: 80, way: direct},
	{name: "loopback", from: app, network: "tcp", to: toLoopback, port: 8080, way: direct},
}

// TestOpenConnections changes the rules while connections are open, and then uses these. None may
// hang. docs/shunt-init.md has its results.
func TestOpenConnections(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy")
	t.Parallel()
	bin := buildShuntInit(t)
	const change, leaveAlone = " -b 15020 -x 10.0.0.0/8,fd00::/8", " -d 8080 -o 80"
	const noAddress = goesOn + ", but over v6 " + reset // ::6 has been removed
	for _, test := range []struct{ before, after, in, out string }{
		{"", "-m REDIRECT", reset, reset},
		{"", "-m TPROXY", goesOn, reset},
		{"-m REDIRECT", "--remove", reset, reset},
		{"-m TPROXY", "--remove", reset, reset},
		{"-m REDIRECT", "-m TPROXY", noAddress, goesOn},
		{"-m TPROXY", "-m REDIRECT", reset, goesOn},
		{"-m REDIRECT", "-m REDIRECT" + leaveAlone, goesOn, goesOn},
		{"-m TPROXY", "-m TPROXY" + leaveAlone, goesOn, goesOn},
		{"-m REDIRECT", "-m REDIRECT" + change, goesOn, goesOn},
		{"-m TPROXY", "-m TPROXY" + change, goesOn, goesOn},
	} {
		for _, backend := range backends {
			t.Run(fmt.Sprintf("%s/%s then %s", backend, test.before, test.after), func(t *testing.T) {
				t.Parallel()
				spec := interception.Default()
				if strings.HasPrefix(test.before, "-m TPROXY") {
					spec.System = interception.SystemTProxy
				}
				traffic := newTraffic(t, spec, identities[spec.System]["uid0-gid1337"], func(t *testing.T, pod *netns.NS) {
					if test.before != "" {
						run(t, pod, bin, argumentsOn(backend, test.before)...)
					}
				})
				open := openConnections(t, traffic)
				after := argumentsOn(backend, test.after)
				if test.after != "--remove" {
					after = append(after, skipVerify) // the proxy that listens is of another system
				}
				run(t, traffic.lab.Pod, bin, after...)
				want := map[string]string{"in": test.in, "out": test.out}
				for kind, become := range useAll(open) {
					name, family, _ := strings.Cut(kind, "/")
					wanted := cmp.Or(want[name], goesOn)
					if both, over6, differ := strings.Cut(wanted, ", but over v6 "); differ {
						wanted = map[string]string{"v4": both, "v6": over6}[family]
					}
					if become != wanted {
						t.Errorf("%s %s: %s, want %s", name, family, become, wanted)
					}
				}
			})
		}
	}
}

// openConnections opens a connection of each kind and family, by name.
func openConnections(t *testing.T, tr *traffic) map[string]net.Conn {
	t.Helper()
	open := map[string]net.Conn{}
	for _, kind := range openKinds {
		for _, family := range []string{"v4", "v6"} {
			ns, o := tr.lab.Pod, netns.DialOptions{Identity: kind.from}
			if kind.outside {
				ns, o.Source = tr.lab.Outside, pick(family, netns.OutsideIPv4, netns.OutsideIPv6)
			}
			conn, err := ns.Dial(t.Context(), kind.network, kind.destination(family), o)
			if err != nil {
				t.Fatalf("%s %s: %v", kind.name, family, err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			if _, err := netns.ReadReply(conn); err != nil {
				t.Fatalf("%s %s: %v", kind.name, family, err)
			}
			open[kind.name+"/"+family] = conn
		}
	}
	return open
}

// useAll finds out what has happened to connections.
func useAll(open map[string]net.Conn) map[string]string {
	type end struct{ kind, become string }
	ends := make(chan end)
	for kind, conn := range open {
		go func() { ends <- end{kind, use(conn)} }()
	}
	became := map[string]string{}
	for range open {
		e := <-ends
		became[e.kind] = e.become
	}
	return became
}

// use sends something and waits for the echo.
func use(conn net.Conn) string {
	_ = conn.SetDeadline(time.Now().Add(patientLook))
	if _, err := conn.Write([]byte("x")); err != nil {
		return reset
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	switch {
	case err == nil:
		return goesOn
	case errors.Is(err, os.ErrDeadlineExceeded):
		return hangs
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, io.EOF):
		return reset
	}
	return err.Error()
}
