//go:build linux

package rules

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// The pod of TestSourcePortsDoNotRunOut has few ports for its own connections, and the proxy makes
// three times as many connections to the app.
const (
	fewPorts      = 50
	firstFewPort  = 20000
	manyHops      = 3 * fewPorts
	portPatience  = 20 * time.Second // the kernel keeps a port for at least 1 s, and without reuse for 60 s
	portRetryWait = 50 * time.Millisecond
)

// TestSourcePortsDoNotRunOut opens and closes connections from the address of the proxy's
// connections to the app in REDIRECT. The proxy's end closes first, so that each of its ports ends
// in TIME_WAIT.
func TestSourcePortsDoNotRunOut(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy")
	t.Parallel()
	for _, backend := range iptablesBackends {
		for _, podIP := range []netip.Addr{netns.PodIPv4, netns.PodIPv6} {
			t.Run(fmt.Sprintf("%s to %s", backend, podIP), func(t *testing.T) {
				t.Parallel()
				pod := quietLab(t).Pod
				apply(t, pod, interception.Default(), interception.Options{Backend: backend, IPv6: interception.IPv6Auto})
				few := fmt.Sprintf("%d %d", firstFewPort, firstFewPort+fewPorts-1)
				if err := pod.Sysctl("net/ipv4/ip_local_port_range", few); err != nil {
					t.Fatal(err)
				}
				listenBoth(t, pod, "tcp", 8080, netns.ListenOptions{Name: serverApp})
				for n := range manyHops {
					if err := hop(t, pod, netip.AddrPortFrom(podIP, 8080)); err != nil {
						t.Fatalf("connection %d of %d, with %d ports: %v", n+1, manyHops, fewPorts, err)
					}
				}
			})
		}
	}
}

// hop makes one connection and ends it. It waits for a free port, for less time than a port is kept
// that cannot be reused.
func hop(t *testing.T, pod *netns.NS, to netip.AddrPort) error {
	t.Helper()
	source := passthrough(to.Addr())
	dialer := net.Dialer{
		Timeout:   portPatience,
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0)),
		Control: func(_, _ string, raw syscall.RawConn) error {
			var failed error
			err := raw.Control(func(fd uintptr) {
				failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
				if to.Addr().Is6() { // 127.0.0.6 is a loopback address, which is enough
					failed = errors.Join(failed, unix.BindToDevice(int(fd), "lo"))
				}
			})
			return errors.Join(err, failed)
		},
	}
	var conn net.Conn
	for deadline := time.Now().Add(portPatience); ; time.Sleep(portRetryWait) {
		err := pod.Do(func() (err error) {
			conn, err = dialer.DialContext(t.Context(), "tcp", to.String())
			return err
		})
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EADDRNOTAVAIL) || time.Now().After(deadline) {
			return err
		}
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(portPatience)); err != nil {
		return err
	}
	reply, err := netns.ReadReply(conn)
	if err != nil {
		return err
	}
	if reply.Server != serverApp || reply.Remote.Addr() != source || reply.Local != to {
		return fmt.Errorf("answered by %+v, want the app at %s and its client at %s", reply, to, source)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, conn) // until the app has closed too
	return err
}
