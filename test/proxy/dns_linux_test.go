package proxy

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/test/netns"
)

const dnsPort = 53

// Addresses of a DNS server that is not one of the pod's resolvers.
var (
	otherIPv4 = netip.MustParseAddr("198.51.100.53")
	otherIPv6 = netip.MustParseAddr("2001:db8::53")
)

// nameserver is a DNS server outside, which answers with as many bytes as its
// client asks for.
type nameserver struct {
	mu    sync.Mutex
	asked map[string]netip.Addr // by name: who asked, as the server sees it
	by    map[string]string     // by name: the address that was asked
}

// TestDNS sends queries of an app through Envoy.
func TestDNS(t *testing.T) {
	t.Parallel()
	for _, mode := range []interception.Mode{interception.ModeRedirect, interception.ModeTProxy} {
		for _, capture := range []config.DNSCapture{config.DNSCaptureResolvers, config.DNSCaptureAll} {
			t.Run(fmt.Sprintf("%s, %s", mode, capture), func(t *testing.T) {
				t.Parallel()
				p := envoyPod(t, mode, map[string]string{annotation.DNSCaptureKey: string(capture)})
				server := &nameserver{asked: map[string]netip.Addr{}, by: map[string]string{}}
				for _, address := range []netip.Addr{resolverIPv4, resolverIPv6, otherIPv4, otherIPv6} {
					server.serve(t, p.Outside, netip.AddrPortFrom(address, dnsPort))
				}
				for _, resolver := range []netip.Addr{resolverIPv4, resolverIPv6} {
					a := &asking{pod: p, address: netip.AddrPortFrom(resolver, dnsPort), server: server}
					t.Run(resolver.String(), a.check)
				}
				for _, other := range []netip.Addr{otherIPv4, otherIPv6} {
					a := &asking{pod: p, address: netip.AddrPortFrom(other, dnsPort), server: server}
					a.checkOther(t, capture == config.DNSCaptureAll)
				}
				server.mu.Lock()
				defer server.mu.Unlock()
				by := slices.Compact(slices.Sorted(maps.Values(server.by)))
				for _, resolver := range []netip.Addr{resolverIPv4, resolverIPv6} {
					if !slices.Contains(by, resolver.String()) {
						t.Errorf("resolver %s was not asked; these were: %s", resolver, by)
					}
				}
			})
		}
	}
}

// serve answers at an address, over udp and tcp.
func (n *nameserver) serve(t *testing.T, ns *netns.NS, address netip.AddrPort) {
	t.Helper()
	listener, err := ns.ListenTCP(address, netns.ListenOptions{Transparent: true})
	if err != nil {
		t.Fatal(err)
	}
	packets, err := listenUDP(ns, address)
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range []*dns.Server{{Listener: listener}, {PacketConn: packets}} {
		server.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, question *dns.Msg) { n.answer(w, question, address) })
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go func() { _ = server.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = server.Shutdown() })
	}
}

// listenUDP makes a socket with an address of any host.
func listenUDP(ns *netns.NS, address netip.AddrPort) (packets net.PacketConn, err error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		rawErr := raw.Control(func(fd uintptr) {
			level, option := unix.SOL_IP, unix.IP_TRANSPARENT
			if address.Addr().Is6() {
				level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
			}
			err = unix.SetsockoptInt(int(fd), level, option, 1)
		})
		if rawErr != nil {
			return rawErr
		}
		return err
	}}
	err = ns.Do(func() (err error) {
		packets, err = config.ListenPacket(context.Background(), "udp", address.String())
		return err
	})
	return packets, err
}

// answer returns as many bytes as the name asks for, or a truncated answer if they are too many.
func (n *nameserver) answer(w dns.ResponseWriter, question *dns.Msg, address netip.AddrPort) {
	name := question.Question[0].Name
	n.mu.Lock()
	n.asked[name], n.by[name] = netip.MustParseAddrPort(w.RemoteAddr().String()).Addr(), address.Addr().String()
	n.mu.Unlock()
	var size int
	_, _ = fmt.Sscanf(name, "bytes-%d", &size)
	answer := new(dns.Msg).SetReply(question)
	answer.Compress = true
	for size > 0 {
		chunk := min(size, 200)
		answer.Answer = append(answer.Answer, &dns.TXT{
			Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET},
			Txt: []string{strings.Repeat("x", chunk)},
		})
		size -= chunk
	}
	if edns := question.IsEdns0(); edns != nil {
		answer.SetEdns0(edns.UDPSize(), edns.Do())
	}
	if _, overUDP := w.RemoteAddr().(*net.UDPAddr); overUDP {
		limit := dns.MinMsgSize
		if edns := question.IsEdns0(); edns != nil {
			limit = int(edns.UDPSize())
		}
		answer.Truncate(limit)
	}
	_ = w.WriteMsg(answer)
}

// asking is an app that queries a server.
type asking struct {
	pod     *pod
	address netip.AddrPort
	server  *nameserver
	number  int
}

// exchange asks for so many bytes, with a buffer of so many for the answer; 0 for a client without
// EDNS.
func (a *asking) exchange(t *testing.T, network string, size int, buffer uint16) (answer *dns.Msg, name string) {
	t.Helper()
	conn, err := a.pod.Pod.Dial(t.Context(), network, a.address, netns.DialOptions{Identity: appIdentity})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	a.number++
	name = fmt.Sprintf("bytes-%d.%d.%s.example.", size, a.number, network)
	question := new(dns.Msg).SetQuestion(name, dns.TypeTXT)
	if buffer > 0 {
		question.SetEdns0(buffer, true)
	}
	answer, _, err = (&dns.Client{Timeout: 20 * time.Second}).ExchangeWithConn(question, &dns.Conn{Conn: conn, UDPSize: buffer})
	if err != nil {
		t.Fatalf("%s %s: %v", network, name, err)
	}
	return answer, name
}

// text returns the number of bytes of text in an answer.
func text(answer *dns.Msg) (size int) {
	for _, record := range answer.Answer {
		size += len(strings.Join(record.(*dns.TXT).Txt, ""))
	}
	return size
}

// check queries in every way.
func (a *asking) check(t *testing.T) {
	for _, test := range []struct {
		network   string
		size      int
		buffer    uint16
		truncated bool
	}{
		{"udp", 10, 0, false},
		{"udp", 400, 0, false},
		{"udp", 1000, 0, true}, // more than 512 bytes, and no EDNS
		{"udp", 1000, 1232, false},
		{"udp", 3500, 4096, false}, // in more than one packet
		{"udp", 6000, 4096, true},
		{"udp", 50_000, 65_535, false},
		{"tcp", 10, 0, false},
		{"tcp", 1000, 0, false},
		{"tcp", 6000, 4096, false},
		{"tcp", 50_000, 0, false}, // how a client asks again after a truncated answer
	} {
		answer, name := a.exchange(t, test.network, test.size, test.buffer)
		if answer.Truncated != test.truncated || (text(answer) == test.size) == test.truncated ||
			(answer.IsEdns0() != nil) != (test.buffer > 0) {
			t.Errorf("%s, %d bytes, EDNS %d: %d bytes, truncated %t, EDNS %t", test.network, test.size, test.buffer,
				text(answer), answer.Truncated, answer.IsEdns0() != nil)
		}
		if answer.Truncated {
			again, _ := a.exchange(t, "tcp", test.size, test.buffer)
			if again.Truncated || text(again) != test.size {
				t.Errorf("asked again over tcp: %d bytes of %d", text(again), test.size)
			}
		}
		a.server.mu.Lock()
		if seen := a.server.asked[name]; seen != netns.PodIPv4 && seen != netns.PodIPv6 {
			t.Errorf("the server was asked by %s, want the pod", seen)
		}
		a.server.mu.Unlock()
	}
	a.checkMany(t)
}

// checkMany sends many queries at once, each from another port, and then two over one connection.
func (a *asking) checkMany(t *testing.T) {
	const often = 200
	var asking sync.WaitGroup
	errs := make([]error, often)
	for i := range often {
		asking.Go(func() {
			conn, err := a.pod.Pod.Dial(t.Context(), "udp", a.address, netns.DialOptions{Identity: appIdentity})
			if err != nil {
				errs[i] = err
				return
			}
			defer conn.Close()
			question := new(dns.Msg).SetQuestion(fmt.Sprintf("bytes-100.%d.many.example.", i), dns.TypeTXT)
			answer, _, err := (&dns.Client{Timeout: 20 * time.Second}).ExchangeWithConn(question, &dns.Conn{Conn: conn})
			if errs[i] = err; err == nil && text(answer) != 100 {
				errs[i] = fmt.Errorf("%d bytes of 100", text(answer))
			}
		})
	}
	asking.Wait()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("query %d of %d at once: %v", i, often, err)
		}
	}
}

// checkOther queries a server that is not one of the pod's resolvers: it gets the query itself, or
// the resolvers get it instead.
func (a *asking) checkOther(t *testing.T, captured bool) {
	t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		answer, name := a.exchange(t, network, 100, 0)
		if text(answer) != 100 {
			t.Errorf("%s over %s: %d bytes of 100", a.address, network, text(answer))
		}
		a.server.mu.Lock()
		if by := a.server.by[name]; (by != a.address.Addr().String()) != captured {
			t.Errorf("asked %s over %s, answered by %s, want by a resolver: %t", a.address, network, by, captured)
		}
		a.server.mu.Unlock()
	}
}
