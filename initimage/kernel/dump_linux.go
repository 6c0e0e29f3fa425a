package kernel

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	poddump "github.com/shunt-dev/shunt/initimage/dump"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Dump prints what decides the ways of packets in the network namespace of this
// thread, as package dump reads it: the rules of all parties with their counters,
// policy rules, routes and addresses. It changes nothing, and takes no program
// unless tables of iptables are there. Its errors are ErrPreflight.
func Dump(ctx context.Context, out io.Writer) error {
	d := dumper{Writer: bufio.NewWriter(out)}
	err := requireNetAdmin()
	if err == nil {
		d.links, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	}
	if err == nil {
		defer d.links.Close()
		err = d.print(ctx)
	}
	if err == nil {
		err = d.Flush()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPreflight, err)
	}
	return nil
}

// dumper prints one namespace.
type dumper struct {
	*bufio.Writer
	links *netlink.Handle
}

func (d *dumper) print(ctx context.Context) error {
	native := []ruleset.RuleSet{}
	for _, family := range ruleset.Families {
		printed, err := d.iptables(ctx, family)
		if err != nil {
			return err
		}
		own, err := readTable(family)
		if err != nil {
			return err
		}
		others, err := nativeRules(family, append(printed, nft.TableName), d.links)
		if err != nil {
			return fmt.Errorf("reading the native rules of nf_tables: %w", err)
		}
		for _, set := range []ruleset.RuleSet{own, others} {
			if len(set.Tables) > 0 {
				native = append(native, set)
			}
		}
	}
	listeners, err := d.listeners()
	if err != nil {
		return err
	}
	text, err := json.Marshal(poddump.Native{Sets: native, Listeners: listeners})
	if err != nil {
		return fmt.Errorf("writing the native rules of nf_tables: %w", err)
	}
	fmt.Fprintf(d, "%s\n", text)
	for _, part := range []func() error{d.policyRules, d.routes, d.addresses} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// listeners returns the sockets that take connections or datagrams, once each; nil if
// the kernel does not tell (CONFIG_INET_DIAG).
func (d *dumper) listeners() ([]poddump.Listener, error) {
	const listening, unconnected = 10, 7 // TCP_LISTEN, TCP_CLOSE
	all := []poddump.Listener{}
	for _, of := range []struct {
		protocol string
		list     func(family uint8) ([]*netlink.Socket, error)
		state    uint8
	}{{"tcp", d.links.SocketDiagTCP, listening}, {"udp", d.links.SocketDiagUDP, unconnected}} {
		for _, family := range ruleset.Families {
			sockets, err := listSockets(of.list, family)
			if errors.Is(err, errNoSocketList) {
				return nil, nil
			}
			if err != nil {
				return nil, fmt.Errorf("listing the %s sockets: %w", of.protocol, err)
			}
			for _, s := range sockets {
				listener := poddump.Listener{Protocol: of.protocol, Port: s.ID.SourcePort, UID: s.UID}
				if s.State == of.state && !slices.Contains(all, listener) {
					all = append(all, listener)
				}
			}
		}
	}
	return all, nil
}

// iptables prints the tables of iptables of a family, and returns those of nf_tables
// that it printed. Without iptables-nft they are left to be read natively.
func (d *dumper) iptables(ctx context.Context, family ruleset.Family) (printed []string, err error) {
	command := map[ruleset.Family]string{ruleset.IPv4: "iptables", ruleset.IPv6: "ip6tables"}[family]
	fmt.Fprintf(d, "# %s-save\n", command)
	for _, name := range []interception.Backend{interception.BackendNFT, interception.BackendLegacy} {
		tables, err := backend{name: name}.tables(family)
		if err != nil {
			return nil, err
		}
		if len(tables) == 0 {
			continue
		}
		program, missing := findBackend(name)
		if missing == nil && name == interception.BackendLegacy {
			missing = requireNetRaw("read its tables")
		}
		if missing != nil {
			fmt.Fprintf(d, "# Warning: %s-%s tables present, which nothing here can read: %s\n", command, name, missing)
			continue
		}
		text, err := runCommand(ctx, "", program.command(family, "save"), "-c")
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(d, "# %s-%s-save\n%s\n", command, name, strings.TrimSpace(text))
		if name == interception.BackendNFT {
			printed = tables
		}
	}
	return printed, nil
}

// policyRules prints them as ip rule does.
func (d *dumper) policyRules() error {
	for _, family := range ruleset.Families {
		rules, err := d.links.RuleList(netlinkFamily(family))
		if err != nil {
			continue // the kernel has none of this family
		}
		fmt.Fprintf(d, "# ip -%d rule\n", family)
		for _, rule := range rules {
			p := policyRule(rule)
			words := []string{fmt.Sprintf("%d:", rule.Priority), "from", "all"}
			if p.Source.IsValid() {
				words[2] = p.Source.String()
			}
			if p.Mark != 0 || rule.Mask != nil {
				words = append(words, fmt.Sprintf("fwmark %#x/%#x", p.Mark, p.Mask))
			}
			if p.OutInterface != "" {
				words = append(words, "oif", p.OutInterface)
			}
			if rule.Invert {
				words = append(words, "not")
			}
			words = append(words, strings.TrimPrefix(p.Narrowed, "not"), effectOf(rule))
			fmt.Fprintln(d, strings.Join(strings.Fields(strings.Join(words, " ")), " "))
		}
	}
	return nil
}

// effectOf is what a policy rule does, in the words of ip rule. netlink does not say
// of which kind one is that looks nothing up.
func effectOf(rule netlink.Rule) string {
	switch {
	case rule.Table != unix.RT_TABLE_UNSPEC:
		return fmt.Sprintf("lookup %d", rule.Table)
	case rule.Goto > 0:
		return fmt.Sprintf("goto %d", rule.Goto)
	}
	return "unreachable"
}

var routeKinds = map[int]string{
	unix.RTN_UNICAST: "unicast", unix.RTN_LOCAL: "local", unix.RTN_BROADCAST: "broadcast", unix.RTN_ANYCAST: "anycast",
	unix.RTN_MULTICAST: "multicast", unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable",
	unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw", unix.RTN_NAT: "nat",
}

// routes prints those of all tables as ip route does.
func (d *dumper) routes() error {
	names, err := linkNames(d.links)
	if err != nil {
		return err
	}
	for _, family := range ruleset.Families {
		all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
		routes, err := d.links.RouteListFiltered(netlinkFamily(family), all, netlink.RT_FILTER_TABLE)
		if err != nil {
			return fmt.Errorf("listing the routes: %w", err)
		}
		fmt.Fprintf(d, "# ip -%d route show table all\n", family)
		for _, route := range routes {
			if route.Table == proofTable {
				continue
			}
			to := anywhere(family).String()
			if route.Dst != nil {
				to = route.Dst.String()
			}
			fmt.Fprintf(d, "%s %s", routeKinds[route.Type], to)
			if route.Gw != nil {
				fmt.Fprintf(d, " via %s", route.Gw)
			}
			if name := names[uint32(route.LinkIndex)]; name != "" {
				fmt.Fprintf(d, " dev %s", name)
			}
			fmt.Fprintf(d, " table %d\n", route.Table)
		}
	}
	return nil
}

// addresses prints the interfaces as ip addr does, and whether they take packets for
// 127.0.0.0/8.
func (d *dumper) addresses() error {
	links, err := d.links.LinkList()
	if err != nil {
		return fmt.Errorf("listing the interfaces: %w", err)
	}
	fmt.Fprintln(d, "# ip addr")
	settings := []string{"all"}
	for _, link := range links {
		attrs := link.Attrs()
		if attrs.Name == probeLink || attrs.Name == probePeer {
			continue
		}
		settings = append(settings, attrs.Name)
		flags := "UP"
		if attrs.Flags&net.FlagLoopback != 0 {
			flags = "LOOPBACK"
		}
		fmt.Fprintf(d, "%d: %s: <%s>\n", attrs.Index, attrs.Name, flags)
		own, err := d.links.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return fmt.Errorf("listing the addresses of %s: %w", attrs.Name, err)
		}
		for _, a := range own {
			word := "inet"
			if a.IP.To4() == nil {
				word = "inet6"
			}
			fmt.Fprintf(d, "    %s %s\n", word, a.IPNet)
		}
	}
	fmt.Fprintln(d, "# sysctl")
	for _, name := range settings {
		if name == "lo" {
			continue
		}
		value, err := sysctl("net/ipv4/conf/" + name + "/route_localnet")
		if err != nil {
			return fmt.Errorf("reading route_localnet of %s: %w", name, err)
		}
		fmt.Fprintf(d, "net.ipv4.conf.%s.route_localnet = %s\n", name, value)
	}
	for _, name := range slices.Concat(ruleset.IPv4.MarkSettings(), ruleset.IPv6.MarkSettings()[1:]) {
		value, err := sysctl(strings.ReplaceAll(name, ".", "/"))
		if err != nil {
			return fmt.Errorf("reading sysctl %s: %w", name, err)
		}
		if value != "" {
			fmt.Fprintf(d, "%s = %s\n", name, value)
		}
	}
	return nil
}
