//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// row is one connection: what was wanted of it, and what became of it.
type row struct {
	mode interception.Mode
	path string
	dst  netip.AddrPort

	wantListener string // without the family; "" for none
	wantSource   netip.Addr

	client   netip.AddrPort // the client's end
	seenBy   string         // the server that answered
	source   netip.AddrPort // the client as the server saw it
	listener string         // that the access log names
	log      string         // the access log's line
	err      error          // what is wrong
}

// Envoy's listeners, as the injected bootstrap names them; for IPv6 with an
// ending.
const (
	inboundListener  = "virtualInbound"
	outboundListener = "virtualOutbound"
)

// call is a connection to be made.
type call struct {
	row
	from   *netns.NS
	o      netns.DialOptions
	server string // that has to answer
}

// connect opens every connection of the scene, over both families.
func (s *scene) connect(ctx context.Context, n *narrator) []row {
	var rows []row
	for _, family := range families {
		for _, c := range s.calls(family) {
			c.mode, c.path = s.mode, c.path+", "+family
			n.say("%s: %s: %s", s.mode, c.path, c.dst)
			c.open(ctx)
			rows = append(rows, c.row)
		}
	}
	return rows
}

func (s *scene) calls(family string) []call {
	pod, client, outside := podAddresses.of(family), clientAddresses.of(family), outsideAddresses.of(family)
	fromClient := call{from: s.network.client, server: "app"}
	fromApp := call{from: s.network.pod, o: netns.DialOptions{Identity: s.app}, server: "outside"}
	toItself := fromApp
	toItself.server = "app"
	calls := []call{
		fromClient.to("client → app", pod, s.appPort, inboundListener, s.inboundSource(client)),
		fromApp.to("app → outside", outside, outsidePort, outboundListener, pod),
		toItself.to("app → itself, by the pod's address", pod, s.appPort, "", pod),
		fromClient.to(fmt.Sprintf("client → app, excluded port %d", s.excludedPort()), pod, s.excludedPort(), "", client),
	}
	if port := s.excludedOutboundPort(); port != 0 {
		calls = append(calls, fromApp.to(fmt.Sprintf("app → outside, excluded port %d", port), outside, port, "", pod))
	}
	return calls
}

// to completes a call: where it goes, the listener that the proxy must get it
// on ("" for none), and the address that the server must see it come from.
func (c call) to(path string, dst netip.Addr, port uint16, listener string, source netip.Addr) call {
	c.row = row{path: path, dst: netip.AddrPortFrom(dst, port), wantListener: listener, wantSource: source}
	return c
}

// inboundSource is the address that the app has to see a client as.
func (s *scene) inboundSource(client netip.Addr) netip.Addr {
	switch {
	case s.mode == interception.ModeTProxy:
		return client
	case client.Is4():
		return netip.MustParseAddr("127.0.0.6")
	default:
		return netip.MustParseAddr("::6")
	}
}

// open makes the connection and notes who answered.
func (c *call) open(ctx context.Context) {
	conn, err := c.from.Dial(ctx, "tcp", c.dst, c.o)
	if err != nil {
		c.err = err
		return
	}
	defer conn.Close()
	c.client = netip.MustParseAddrPort(conn.LocalAddr().String())
	if c.err = conn.SetDeadline(time.Now().Add(replyTime)); c.err != nil {
		return
	}
	reply, err := netns.ReadReply(conn)
	if err != nil {
		c.err = err
		return
	}
	c.seenBy, c.source = reply.Server, reply.Remote
	if reply.Server != c.server || reply.Local != c.dst {
		c.err = fmt.Errorf("answered by %s at %s, wanted %s at %s", reply.Server, reply.Local, c.server, c.dst)
	}
}

const replyTime = 5 * time.Second

// logLine is what the access log has to say about a connection, the five
// addresses first.
type logLine struct {
	Listener         string `json:"listener"`
	UpstreamCluster  string `json:"upstream_cluster"`
	UpstreamHost     string `json:"upstream_host"`
	UpstreamLocal    string `json:"upstream_local_address"`
	DownstreamLocal  string `json:"downstream_local_address"`
	DownstreamRemote string `json:"downstream_remote_address"`
}

// judge finds each connection in the proxy's access log, by the address and
// port of its client, and compares all that is known with what was wanted.
func (s *scene) judge(rows []row, output []string) {
	for i := range rows {
		r := &rows[i]
		found := 0
		for _, text := range output {
			var line logLine
			if json.Unmarshal([]byte(text), &line) != nil || line.DownstreamRemote != r.client.String() {
				continue
			}
			found++
			r.listener, r.log = line.Listener, text
			if r.err == nil {
				r.err = r.compareLog(line)
			}
		}
		if r.err == nil {
			r.err = r.compare(found)
		}
	}
}

func (r *row) compare(found int) error {
	switch {
	case r.source.Addr() != r.wantSource:
		return fmt.Errorf("%s saw the source address %s, wanted %s", r.seenBy, r.source.Addr(), r.wantSource)
	case r.wantListener == "" && found > 0:
		return fmt.Errorf("the proxy got it on %s, wanted: direct", r.listener)
	case r.wantListener != "" && found != 1:
		return fmt.Errorf("%d lines in the access log, wanted one of %s", found, r.wantListener)
	}
	return nil
}

// compareLog holds the addresses of an access log line against each other's
// ends: the client's and the server's.
func (r *row) compareLog(line logLine) error {
	if r.wantListener == "" {
		return nil // compare says it
	}
	var errs []error
	for _, c := range []struct{ name, got, want string }{
		{"downstream_local_address", line.DownstreamLocal, r.dst.String()},
		{"upstream_host", line.UpstreamHost, r.dst.String()},
		{"upstream_local_address", line.UpstreamLocal, r.source.String()},
	} {
		if c.got != c.want {
			errs = append(errs, fmt.Errorf("access log: %s is %q, wanted %q", c.name, c.got, c.want))
		}
	}
	if !strings.HasPrefix(line.Listener, r.wantListener) {
		errs = append(errs, fmt.Errorf("the proxy got it on %q, wanted %s", line.Listener, r.wantListener))
	}
	return errors.Join(errs...)
}
