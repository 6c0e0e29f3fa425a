package rules

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// grid calls visit with every combination of what a rule may match.
func grid(family ruleset.Family, visit func(ruleset.Packet)) {
	addrs := map[ruleset.Family][]string{
		ruleset.IPv4: {"10.0.0.1", "10.0.0.9", "127.0.0.1", "127.0.0.6"},
		ruleset.IPv6: {"fd00::1", "fd00::9", "::1", "::6"},
	}[family]
	states := []ruleset.State{ruleset.New, ruleset.Established, ruleset.Related, ruleset.Invalid}
	for _, src := range addrs {
		for _, dst := range addrs[:3] {
			for _, protocol := range []string{"tcp", "udp"} {
				for _, port := range []uint16{22, 53, 80, 15001, 15006, 15008, 15020, 15021, 15053, 15090} {
					for _, state := range states {
						p := ruleset.Packet{
							Family: family, Protocol: protocol, DstPort: port, State: state,
							Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst),
						}
						arrivals(p, visit)
						departures(p, visit)
					}
				}
			}
		}
	}
}

// arrivals come from outside, from the client or from a neighbour that forges a loopback address:
// they carry no mark.
func arrivals(p ruleset.Packet, visit func(ruleset.Packet)) {
	if p.Dst == Client[p.Family] || Pod.Addresses[0] == p.Src || Pod.Addresses[1] == p.Src {
		return
	}
	p.Direction, p.Interface = ruleset.In, Pod.Uplink
	visit(p)
}

func departures(packet ruleset.Packet, visit func(ruleset.Packet)) {
	packet.Direction = ruleset.Out
	for _, uid := range []uint32{0, 1000, 1337} {
		for _, gid := range []uint32{0, 1000, 1337} {
			for _, mark := range []uint32{0, 0x539, 0x53a, 0x111, 0x1539} {
				for _, connmark := range []uint32{0, 0x539, 0x111} {
					if connmark != 0 && (packet.State == ruleset.New || packet.State == ruleset.Related) {
						continue // the mark is saved with the first packet
					}
					packet.UID, packet.GID, packet.Mark, packet.ConnMark = uid, gid, mark, connmark
					visit(packet)
				}
			}
		}
	}
}

// difference is a packet that our rules send elsewhere than the listing does.
type difference struct {
	ruleset.Packet
	tproxy bool // SystemTProxy
	ours   ruleset.Fate
}

func (d difference) first() bool { return d.State == ruleset.New || d.State == ruleset.Related }

// fromProxyToPod reports whether the proxy sends the packet to its own pod's address.
func (d difference) fromProxyToPod() bool {
	own := d.Dst == Pod.Addresses[0] || d.Dst == Pod.Addresses[1]
	return own && (d.UID == 1337 || d.GID == 1337)
}

// hop reports whether the packet has a sign of the proxy's connection to the app.
func (d difference) hop() bool { return d.Mark == 0x539 || d.Src == Client[d.Family] }

// reasons state for which packets our rules are better than the listing, and why. The first that
// fits counts.
var reasons = []struct {
	fits func(difference) bool
	why  string
}{
	{func(d difference) bool {
		return d.Direction == ruleset.In && d.Dst.IsLoopback() && d.first() && d.ours == ruleset.Dropped
	}, "the listing gives a neighbour's packet to loopback to the proxy, which connects there, or leaves it to route_localnet"},
	{func(d difference) bool { return d.tproxy && d.State == ruleset.Invalid && d.ours == ruleset.Direct },
		"an INVALID packet opens no connection: a socket that is there already gets it, or it is answered by a reset"},
	{func(d difference) bool {
		return d.tproxy && d.first() && d.DstPort == 15008 && d.ours == ruleset.Direct
	},
		"the listing intercepts the tunnel port in TPROXY, though not in REDIRECT"},
	{func(d difference) bool { return d.tproxy && d.State == ruleset.Related && d.ours == ruleset.TProxied },
		"the listing lets a connection that another one announced (ftp) past the proxy"},
	{func(d difference) bool {
		return d.tproxy && d.first() && d.fromProxyToPod() && d.hop() && d.ours == ruleset.Direct
	}, "the listing sends the inbound hop of a proxy of uid 1337, or one that cannot mark it, back to the proxy: a loop"},
	{func(d difference) bool {
		return d.tproxy && d.first() && (d.UID == 1337 || d.GID == 1337) && d.Mark == 0x539 && d.ours == ruleset.Local
	}, "the mark says that the connection is for the pod: where it is not, the listing loops, and ours finds no socket"},
	{func(d difference) bool {
		return d.tproxy && d.first() && d.fromProxyToPod() && d.ours == ruleset.TProxied
	},
		"the listing takes a proxy of uid 1337 to the inbound listener by REDIRECT, which hides the original destination from it"},
	{func(d difference) bool {
		return d.tproxy && d.first() && d.fromProxyToPod() && d.ours == ruleset.Direct
	},
		"a port that is left alone is left alone for the proxy too; the listing does so for a proxy of uid 0 only"},
	{func(d difference) bool {
		return d.first() && d.fromProxyToPod() && d.DstPort == 53 && d.ours == ruleset.Direct
	}, "the listing lets the DNS queries of a proxy to its own pod go direct by its uid, and not by its gid"},
	{func(d difference) bool { return d.first() && d.fromProxyToPod() && d.ours == ruleset.Redirected },
		"the listing lets a proxy that has but one of the ids reach its own pod past the inbound listener"},
}

// reasonFor returns why our rules differ from the listing for a packet, or "".
func reasonFor(system interception.System, p ruleset.Packet, ours ruleset.Outcome) string {
	d := difference{p, system == interception.SystemTProxy, ours.Fate}
	for _, r := range reasons {
		if (p.Protocol == "tcp" || p.Direction == ruleset.In) && r.fits(d) {
			return r.why
		}
	}
	return ""
}

// TestListings checks that our rules send every packet of the grid where the system's listing does,
// or have a reason not to.
func TestListings(t *testing.T) {
	for _, l := range Listings {
		for _, family := range ruleset.Families {
			t.Run(fmt.Sprintf("%s/%s", l.Name, family), func(t *testing.T) {
				spec, err := l.Spec()
				if err != nil {
					t.Fatal(err)
				}
				want, err := l.Read("testdata/listings", family)
				if err != nil {
					t.Fatal(err)
				}
				ours := ruleset.Build(spec, family)
				packets, differing := 0, map[string]int{}
				grid(family, func(p ruleset.Packet) {
					packets++
					wanted, got := ruleset.Trace(want, Pod, p), ruleset.Trace(ours, Pod, p)
					if wanted.Outcome == got.Outcome {
						return
					}
					if why := reasonFor(spec.System, p, got.Outcome); why != "" {
						differing[why]++
					} else if !t.Failed() {
						t.Errorf("%+v\nlisting:\n%s\nours:\n%s", p, wanted, got)
					}
				})
				t.Logf("%d packets", packets)
				for why, n := range differing {
					t.Logf("%d differ: %s", n, why)
				}
			})
		}
	}
}
