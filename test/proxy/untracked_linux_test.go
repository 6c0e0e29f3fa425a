package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	envoyconfig "github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/test/netns"
)

// TestEverySocketIsMarked counts Envoy's packets by the marks of their sockets, without conntrack:
// those to the app have the mark of the hop, and there is none without a mark.
func TestEverySocketIsMarked(t *testing.T) {
	t.Parallel()
	for _, annotations := range []map[string]string{nil, lookForHTTP} {
		t.Run(fmt.Sprint(annotations), func(t *testing.T) {
			p := untrackedPod(t, annotations)
			const ofEnvoy = "-p tcp -m owner --uid-owner 0 --gid-owner 1337" // the test has its gid, too
			marks := interception.DefaultFor(interception.SystemTProxy).Marks()
			hop, proxy := fmt.Sprintf("--mark %#x", marks.Hop), fmt.Sprintf("--mark %#x", marks.Proxy)
			rules := []struct{ name, match string }{
				{"unmarked", ofEnvoy + " -m mark --mark 0"},
				{"hops to the app", ofEnvoy + " -o lo --syn -m mark " + hop},
				{"others to the app", ofEnvoy + " -o lo --syn --dport 2003 -m mark ! " + hop},
				{"to elsewhere", ofEnvoy + " -o eth0 --syn -m mark " + proxy},
				{"others to elsewhere", ofEnvoy + " -o eth0 --syn -m mark ! " + proxy},
				{"within Envoy", ofEnvoy + " -o lo --syn -m mark " + proxy},
			}
			tools := []string{"iptables-nft", "ip6tables-nft"}
			for _, tool := range tools {
				for _, rule := range rules {
					p.iptables(t, tool, "-t raw -A OUTPUT "+rule.match)
				}
			}
			for _, d := range []direction{inbound4, inbound6, outbound4, outbound6} {
				w := &way{direction: d, pod: p, system: interception.SystemTProxy}
				w.serve(t, linePort, answerLine)
				if err := w.exchangeLines(t, linePort); err != nil {
					t.Errorf("%s: %v", d, err)
				}
				w.checkEnds(t)
			}
			for i, pod := range p.Node.PodIPs {
				nobody := netip.AddrPortFrom(pod, echoPort)
				if _, err := p.Pod.Ask(t.Context(), "tcp", nobody, netns.DialOptions{Identity: asProxy}); err == nil {
					t.Error("nobody listens there, and yet there is an answer")
				}
				for port, path := range map[uint16]string{
					interception.HealthPort: envoyconfig.HealthPath, interception.MetricsPort: envoyconfig.MetricsPath,
				} {
					if status, said := get(client(fromOutside(p.Lab)), p.Node.PodIPs[i], port, path); status != http.StatusOK {
						t.Errorf("%s%s: status %d %s", netip.AddrPortFrom(pod, port), path, status, said)
					}
				}
			}
			// Of each family: a hop from outside and one of the pod itself. The health check passes two
			// listeners; the admin interface is on IPv4 alone, and its connections are kept.
			want := map[string][]string{
				"unmarked": {"0", "0"}, "hops to the app": {"2", "2"}, "others to the app": {"0", "0"},
				"to elsewhere": {"1", "1"}, "others to elsewhere": {"0", "0"}, "within Envoy": {"3", "2"},
			}
			for family, tool := range tools {
				lines := strings.Split(strings.TrimSpace(p.iptables(t, tool, "-t raw -nvxL OUTPUT")), "\n")[2:]
				for i, rule := range rules {
					count, want := strings.Fields(lines[i])[0], want[rule.name][family]
					if count != want && (want != "3" || count != "4") {
						t.Errorf("%s: %s packets %s, want %s", tool, count, rule.name, want)
					}
				}
			}
			checkNothingTracked(t, p)
		})
	}
}

func (p *pod) iptables(t *testing.T, tool, args string) string {
	t.Helper()
	out, err := p.Pod.Command(t.Context(), tool, strings.Fields(args)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", tool, args, err, out)
	}
	return string(out)
}

// TestUntrackedExceptions checks what goes past the proxy without conntrack, in both families: what
// is excluded, and what the pod says to itself.
func TestUntrackedExceptions(t *testing.T) {
	t.Parallel()
	const excluded, ordinary = 2222, 2223
	p := untrackedPod(t, map[string]string{
		annotation.ExcludeInboundPortsKey: "2222", annotation.ExcludeOutboundPortsKey: "2222",
		annotation.ExcludeOutboundIPRangesKey: "198.51.100.0/24,2001:db8:1::/48",
	})
	for _, test := range []struct {
		name   string
		inside bool // the client
		to     []netip.Addr
		port   uint16
		client []netip.Addr // whom the server sees
		logged int
	}{
		{"an excluded port of the pod", false, p.Node.PodIPs, excluded, []netip.Addr{netns.OutsideIPv4, netns.OutsideIPv6}, 0},
		{"another port of the pod", false, p.Node.PodIPs, ordinary, []netip.Addr{netns.OutsideIPv4, netns.OutsideIPv6}, 1},
		{"an excluded port elsewhere", true, []netip.Addr{serverIPv4, serverIPv6}, excluded, p.Node.PodIPs, 0},
		{"another port elsewhere", true, []netip.Addr{serverIPv4, serverIPv6}, ordinary, p.Node.PodIPs, 1},
		{"an excluded range", true,
			[]netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8:1::7")}, ordinary, p.Node.PodIPs, 0},
		{"the pod itself", true, p.Node.PodIPs, ordinary, p.Node.PodIPs, 0},
		{"loopback", true, []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}, ordinary,
			[]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			for i, to := range test.to {
				before := len(p.logLines())
				server, o := p.Pod, netns.ListenOptions{Name: "server", Identity: appIdentity}
				if test.inside && !to.IsLoopback() && to != p.Node.PodIPs[i] {
					server, o = p.Outside, netns.ListenOptions{Name: "server"}
				}
				listener, err := server.Listen("tcp", netip.AddrPortFrom(netns.Wildcards[i], test.port), o)
				if err != nil {
					t.Fatal(err)
				}
				from, dial := p.Pod, netns.DialOptions{Identity: appIdentity}
				if !test.inside {
					from, dial = p.Outside, netns.DialOptions{Source: test.client[i]}
				}
				reply, err := from.Ask(t.Context(), "tcp", netip.AddrPortFrom(to, test.port), dial)
				_ = listener.Close()
				if err != nil || reply.Remote.Addr() != test.client[i] {
					t.Errorf("%s: %+v, %v; want the server to see %s", to, reply, err, test.client[i])
				}
				within(t, "the log has its line", &output{}, func() bool { return len(p.logLines()) >= before+test.logged })
				if lines := p.logLines()[before:]; len(lines) != test.logged {
					t.Errorf("%s: logged %v, want %d lines", to, lines, test.logged)
				}
			}
		})
	}
	checkNothingTracked(t, p)
}

// TestUntrackedAborts lets each end abort a connection: the other one has to see it.
func TestUntrackedAborts(t *testing.T) {
	t.Parallel()
	p := untrackedPod(t, nil)
	for _, d := range []direction{inbound4, inbound6, outbound4, outbound6} {
		w := &way{direction: d, pod: p, system: interception.SystemTProxy}
		for _, byServer := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, by the server: %t", d, byServer), func(t *testing.T) {
				listener := w.listen(t, linePort)
				conn := w.mustDial(t, linePort)
				if _, err := io.WriteString(conn, line); err != nil {
					t.Fatal(err)
				}
				accepted, err := listener.Accept()
				if err != nil {
					t.Fatal(err)
				}
				server := accepted.(*net.TCPConn)
				if _, err := io.ReadFull(server, make([]byte, len(line))); err != nil {
					t.Fatal(err)
				}
				aborts, sees := conn, server
				if byServer {
					aborts, sees = server, conn
				}
				if err := aborts.SetLinger(0); err != nil {
					t.Fatal(err)
				}
				_ = aborts.Close()
				if _, err := io.ReadAll(sees); err == nil || !strings.Contains(err.Error(), "reset") {
					t.Errorf("the other end sees %v, want a reset", err)
				}
			})
		}
	}
	checkNothingTracked(t, p)
}
