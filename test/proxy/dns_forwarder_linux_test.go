package proxy

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/test/container"
	"github.com/shunt-dev/shunt/test/netns"
)

// loopedEnough is how many queries prove a loop.
const loopedEnough = 100

// forwarder is a DNS server in the pod, such as dnsmasq, which asks another one. It stops if
// queries loop.
type forwarder struct {
	pod      *pod
	upstream netip.AddrPort
	asked    atomic.Int64
}

// ServeDNS forwards a query.
func (f *forwarder) ServeDNS(w dns.ResponseWriter, question *dns.Msg) {
	if f.asked.Add(1) > loopedEnough {
		return
	}
	conn, err := f.pod.Pod.Dial(context.Background(), "udp", f.upstream, netns.DialOptions{Identity: appIdentity})
	if err != nil {
		return
	}
	defer conn.Close()
	answer, _, err := (&dns.Client{Timeout: 20 * time.Second}).ExchangeWithConn(question, &dns.Conn{Conn: conn})
	if err == nil {
		_ = w.WriteMsg(answer)
	}
}

// startForwarder starts one in the pod.
func startForwarder(t *testing.T, p *pod, at netip.Addr, upstream netip.Addr) *forwarder {
	t.Helper()
	f := &forwarder{pod: p, upstream: netip.AddrPortFrom(upstream, dnsPort)}
	packets, err := listenUDP(p.Pod, netip.AddrPortFrom(at, dnsPort))
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	server := &dns.Server{PacketConn: packets, Handler: f, NotifyStartedFunc: func() { close(started) }}
	go func() { _ = server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { _ = server.Shutdown() })
	return f
}

// TestDNSForwarderInPod queries a forwarder in the pod, whose own queries are captured like those
// of any app. If the proxy sent them to the forwarder, they would loop.
func TestDNSForwarderInPod(t *testing.T) {
	t.Parallel()
	loopback := netip.MustParseAddr("127.0.0.1")
	for _, capture := range []config.DNSCapture{config.DNSCaptureResolvers, config.DNSCaptureAll} {
		for _, address := range []netip.Addr{loopback, netns.PodIPv4} {
			t.Run(fmt.Sprintf("%s, %s", capture, address), func(t *testing.T) {
				t.Parallel()
				injected := newPod(t, interception.ModeRedirect, map[string]string{annotation.DNSCaptureKey: string(capture)}, nil)
				programs := map[string]string{envoy: envoyBinary(t)}
				p, err := startPodOn(t, injected, container.Node{Programs: programs}, address, resolverIPv4)
				if err != nil {
					t.Fatal(err)
				}
				server := &nameserver{asked: map[string]netip.Addr{}, by: map[string]string{}}
				server.serve(t, p.Outside, netip.AddrPortFrom(resolverIPv4, dnsPort))
				f := startForwarder(t, p, address, resolverIPv4)
				a := &asking{pod: p, address: netip.AddrPortFrom(address, dnsPort), server: server}
				const often = 10 // for each of the proxy's resolvers in turn
				for range often {
					if answer, name := a.exchange(t, "udp", 100, 0); text(answer) != 100 {
						t.Errorf("%s: %d bytes of 100", name, text(answer))
					}
				}
				if asked := f.asked.Load(); asked > often {
					t.Errorf("%d queries became %d at the pod's own forwarder", often, asked)
				}
			})
			t.Run(fmt.Sprintf("%s, %s alone", capture, address), func(t *testing.T) {
				t.Parallel()
				injected := newPod(t, interception.ModeRedirect, map[string]string{annotation.DNSCaptureKey: string(capture)}, nil)
				p, err := startPodOn(t, injected, container.Node{Programs: map[string]string{envoy: envoyBinary(t)}}, address)
				if err == nil {
					f := startForwarder(t, p, address, otherIPv4)
					conn, dialErr := p.Pod.Dial(t.Context(), "udp", netip.AddrPortFrom(address, dnsPort),
						netns.DialOptions{Identity: appIdentity})
					if dialErr != nil {
						t.Fatal(dialErr)
					}
					defer conn.Close()
					question := new(dns.Msg).SetQuestion("example.", dns.TypeA)
					_, _, exchangeErr := (&dns.Client{Timeout: 3 * time.Second}).ExchangeWithConn(question, &dns.Conn{Conn: conn})
					t.Fatalf("the pod started; one query became %d: %v", f.asked.Load(), exchangeErr)
				}
				for _, want := range []string{"address of the pod itself", address.String(), "accepted"} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%q is not in %q", want, err)
					}
				}
			})
		}
	}
}
