//go:build linux

package rules

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// cookies are the values of tcp_syncookies. With 2 the kernel makes each socket when the ACK comes,
// and so does any kernel whose queue of SYNs is full.
var cookies = []string{"net/ipv4/tcp_syncookies=1", "net/ipv4/tcp_syncookies=2"}

var withoutConntrack = []string{"-m", "TPROXY", "--no-conntrack", "--backend=nftables"}

// TestWithoutConntrack opens every kind of connection through pods whose state is in the marks of
// sockets, with proxies that set marks and with such that do not, and looks that conntrack has no
// entry.
func TestWithoutConntrack(t *testing.T) {
	netns.Require(t, "nft")
	t.Parallel()
	spec, install := specWithoutConntrack(t)
	for name, id := range identities[interception.SystemTProxy] {
		for _, values := range cookies {
			t.Run(values+"/"+name, func(t *testing.T) {
				t.Parallel()
				tr := newTraffic(t, spec, id, install(values))
				tr.run(t)
				untracked(t, tr.lab.Pod)
			})
		}
	}
	for _, values := range settings {
		t.Run(values, func(t *testing.T) {
			t.Parallel()
			id := identities[interception.SystemTProxy]["uid1337-gid1337-unmarked"]
			newTraffic(t, spec, id, install(values)).run(t)
		})
	}
}

// specWithoutConntrack returns the spec, and what installs it in a pod with some sysctls.
func specWithoutConntrack(t *testing.T) (spec interception.Spec, install func(values string) func(t *testing.T, pod *netns.NS)) {
	t.Helper()
	bin := buildShuntInit(t)
	spec, _, err := interception.ParseArgs(withoutConntrack)
	if err != nil {
		t.Fatal(err)
	}
	return spec, func(values string) func(t *testing.T, pod *netns.NS) {
		return func(t *testing.T, pod *netns.NS) {
			t.Helper()
			setSysctls(t, pod, values)
			run(t, pod, bin, withoutConntrack...)
		}
	}
}

func untracked(t *testing.T, pod *netns.NS) {
	t.Helper()
	if count := strings.TrimSpace(run(t, pod, "cat", "/proc/sys/net/netfilter/nf_conntrack_count")); count != "0" {
		t.Errorf("conntrack has %s entries, want none", count)
	}
}

// TestEndsWithoutConntrack ends connections in several ways: segments of sockets that are closed, in
// TIME_WAIT or none at all have to go the right way, too.
func TestEndsWithoutConntrack(t *testing.T) {
	netns.Require(t, "nft")
	t.Parallel()
	spec, install := specWithoutConntrack(t)
	for _, name := range []string{"uid1337-gid1337", "uid1337-gid1337-unmarked"} {
		for _, values := range cookies {
			t.Run(values+"/"+name, func(t *testing.T) {
				t.Parallel()
				tr := newTraffic(t, spec, identities[interception.SystemTProxy][name], install(values))
				for _, family := range []string{"v4", "v6"} {
					tr.endings(t, family)
				}
				untracked(t, tr.lab.Pod)
			})
		}
	}
}

// endings ends connections of some kinds, several times.
func (tr *traffic) endings(t *testing.T, family string) {
	for _, k := range kinds {
		if k.network != "tcp" || k.proxy || k.to == toLoopback {
			continue
		}
		for how, end := range map[string]func(*net.TCPConn) error{"aborts": abort, "half-closes": halfClose} {
			for again := range 3 {
				tr.proxy.take()
				conn, err := tr.dialBy(t, k, family)
				if err == nil {
					_, err = netns.ReadReply(conn)
				}
				if err == nil {
					err = exchange(conn)
				}
				if err == nil {
					err = end(conn.(*net.TCPConn))
				}
				if err != nil {
					t.Errorf("%s %s, which %s, time %d: %v", k.name, family, how, again+1, err)
				}
			}
		}
	}
	refused := kind{outside: true, network: "tcp", to: toPod, port: interception.DefaultTunnelPort}
	if _, err := tr.dialBy(t, refused, family); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%s: to a closed port that is left alone: %v, want that it is refused at once", family, err)
	}
}

// dialBy opens a connection of a kind, which has to end soon.
func (tr *traffic) dialBy(t *testing.T, k kind, family string) (net.Conn, error) {
	ns, options := tr.lab.Pod, netns.DialOptions{Identity: k.from}
	if k.outside {
		ns, options.Source = tr.lab.Outside, tr.source(k, family)
	}
	conn, err := ns.Dial(t.Context(), k.network, k.destination(family), options)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(exchangeTime))
}

// abort resets the connection.
func abort(conn *net.TCPConn) error {
	return errors.Join(conn.SetLinger(0), conn.Close())
}

// halfClose ends its own direction, and waits for the end of the other, which is in TIME_WAIT then.
func halfClose(conn *net.TCPConn) error {
	defer conn.Close()
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	if n, err := io.Copy(io.Discard, conn); n > 0 || err != nil {
		return fmt.Errorf("%d more bytes, %w", n, err)
	}
	return nil
}
