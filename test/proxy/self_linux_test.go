package proxy

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/test/netns"
)

// asProxy is the identity of the proxy for the rules, in both modes.
var asProxy = netns.Identity{UID: 1337, GID: 1337}

// TestProxyCallsItsOwnPod checks that a connection from the pod's own address is intercepted and
// forwarded to the app. In TPROXY the proxy's connection has one address at both ends, and if its
// socket were bound to lo, the kernel would not find it for the answers.
func TestProxyCallsItsOwnPod(t *testing.T) {
	t.Parallel()
	const port = 8080
	for _, v := range variants {
		for _, annotations := range []map[string]string{nil, lookForHTTP} {
			t.Run(fmt.Sprint(v.name, annotations), func(t *testing.T) {
				p := v.start(t, annotations)
				for i, pod := range []netip.Addr{netns.PodIPv4, netns.PodIPv6} {
					server, err := p.Pod.Listen("tcp", netip.AddrPortFrom(netns.Wildcards[i], port), netns.ListenOptions{Name: "app"})
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = server.Close() })
					want := map[interception.System][]string{
						interception.SystemRedirect: {"127.0.0.6", "::6"}, interception.SystemTProxy: {pod.String(), pod.String()},
					}[v.system][i]
					reply, err := p.Pod.Ask(t.Context(), "tcp", netip.AddrPortFrom(pod, port), netns.DialOptions{Identity: asProxy})
					if err != nil || reply.Server != "app" || reply.Remote.Addr().String() != want {
						t.Errorf("%s: %+v, %v, want the app to see %s", pod, reply, err, want)
					}
				}
				within(t, "both connections are logged as inbound", &output{}, func() bool { return len(p.logLines()) >= 2 })
			})
		}
	}
}

// TestProxyUser checks that the proxy may run as a user that no image has. An app of uid 1337 is
// intercepted like any other then.
func TestProxyUser(t *testing.T) {
	t.Parallel()
	const id = 61337
	for mode, system := range map[interception.Mode]interception.System{
		interception.ModeRedirect: interception.SystemRedirect, interception.ModeTProxy: interception.SystemTProxy,
	} {
		t.Run(string(mode), func(t *testing.T) {
			injected := newPod(t, mode, nil, func(cfg *config.Config) { cfg.ProxyUID, cfg.ProxyGID = id, id })
			p := startPod(t, injected, map[string]string{envoy: envoyBinary(t)}, nil)
			p.kind = envoy
			for _, d := range []direction{inbound4, inbound6, outbound4, outbound6} {
				w := &way{direction: d, pod: p, system: system}
				w.serve(t, linePort, func(conn *net.TCPConn) error {
					_, err := io.Copy(conn, conn)
					return err
				})
				if err := w.exchangeLines(t, linePort); err != nil {
					t.Errorf("%s: %v", d, err)
				}
				w.checkEnds(t)
			}
			for _, server := range []netip.Addr{serverIPv4, serverIPv6} {
				conn, err := p.Pod.Dial(t.Context(), "tcp", netip.AddrPortFrom(server, linePort), netns.DialOptions{Identity: asProxy})
				if err != nil {
					t.Fatal(err)
				}
				_ = conn.Close()
				within(t, "the connection of uid 1337 is logged", &output{}, func() bool {
					return slices.ContainsFunc(p.logLines(), func(line logLine) bool {
						return line.text("downstream_remote_address") == conn.LocalAddr().String()
					})
				})
			}
		})
	}
}

// TestInboundToLoopback checks that Envoy itself closes connections from other hosts to the pod's
// loopback interface, whatever the rules let through.
func TestInboundToLoopback(t *testing.T) {
	t.Parallel()
	for _, mode := range []interception.Mode{interception.ModeRedirect, interception.ModeTProxy} {
		t.Run(string(mode), func(t *testing.T) {
			p := envoyPod(t, mode, nil)
			address := netip.MustParseAddrPort("127.0.0.1:8080")
			server, err := p.Pod.Listen("tcp", address, netns.ListenOptions{Name: "app"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = server.Close() })
			// What a REDIRECT without the rule that drops it would do.
			redirect := strings.Fields("-t nat -I OUTPUT -o lo -p tcp --dport 8080 -j REDIRECT --to-ports 15006")
			if out, err := p.Pod.Command(t.Context(), "iptables-nft", redirect...).CombinedOutput(); err != nil {
				t.Fatalf("iptables: %v\n%s", err, out)
			}
			if reply, err := p.Pod.Ask(t.Context(), "tcp", address, netns.DialOptions{Identity: appIdentity}); err == nil {
				t.Errorf("it is answered by %s, through Envoy", reply.Server)
			}
			within(t, "the connection is logged", &output{}, func() bool { return len(p.logLines()) > 0 })
			if line := p.logLines()[0]; line["filter_chain"] != "loopback" {
				t.Errorf("it went by the chain %v, want loopback", line["filter_chain"])
			}
		})
	}
}
