package interception

import "net/netip"

// arguments holds the values of all flags, before mode and system become one.
type arguments struct {
	Spec
	Options
	mode   Mode   // "" until -m is given
	system System // "" until --system is given
}

// flagDef is one flag of shunt-init: its names, its help text, and the place in the
// arguments that it reads into and is printed from.
type flagDef struct {
	name, short, usage string
	isBool             bool
	isList             bool // may be given several times
	set                func(*arguments, string) error
	get                func(*arguments) string
}

// bind makes a flag read into and print from the same place.
func bind[T any](name, short, usage string, codec codec[T], place func(*arguments) *T) flagDef {
	return flagDef{
		name: name, short: short, usage: usage,
		set: func(a *arguments, text string) error {
			value, err := codec.parse(text)
			if err == nil {
				*place(a) = value
			}
			return err
		},
		get: func(a *arguments) string { return codec.format(*place(a)) },
	}
}

// read reads the flag's value. Its error names the flag.
func (def flagDef) read(a *arguments, text string) error {
	if err := def.set(a, text); err != nil {
		return &FlagError{Flag: "--" + def.name, Err: err}
	}
	return nil
}

func boolFlag(name, short, usage string, place func(*arguments) *bool) flagDef {
	def := bind(name, short, usage, boolCodec, place)
	def.isBool = true
	return def
}

// listFlag returns a flag whose value is a list, separated by commas.
func listFlag[T any](name, short, usage string, c codec[T], place func(*arguments) *T) flagDef {
	def := bind(name, short, usage, c, place)
	def.isList = true
	return def
}

// Names of flags that other errors refer to as well.
const (
	flagOutboundPort = "envoy-port"
	flagInboundPort  = "inbound-capture-port"
	flagTunnelPort   = "inbound-tunnel-port"
	flagMode         = "istio-inbound-interception-mode"
	flagSystem       = "system"
	flagUIDs         = "proxy-uid"
	flagGIDs         = "proxy-gid"
	flagVirtual      = "kube-virt-interfaces"

	flagExcludeInterfaces  = "istio-exclude-interfaces"
	flagOwnerGroups        = "outbound-owner-groups"
	flagExcludeOwnerGroups = "outbound-owner-groups-exclude"

	flagDNSPort     = "dns-port"
	flagRedirectDNS = "redirect-dns"
	flagCaptureAll  = "capture-all-dns"
	flagDNSServers  = "dns-servers"
	flagUDPPorts    = "capture-udp-ports"
	flagRejectUDP   = "reject-udp-ports"

	flagDropInvalid = "drop-invalid"
	flagMark        = "istio-inbound-tproxy-mark"
	flagNoConntrack = "no-conntrack"
	flagBackend     = "backend"

	flagDryRun     = "dry-run"
	flagVerify     = "verify"
	flagRemove     = "remove"
	flagSkipVerify = "skip-verify"
	flagProve      = "prove"
	flagShare      = "share"
	flagEnvoy      = "envoy"
)

// specFlags are istio-iptables' flags, with its names and meaning, in the order in
// which Args prints them.
var specFlags = []flagDef{
	bind(flagOutboundPort, "p", "port of the proxy that outbound connections are sent to", portCodec,
		func(a *arguments) *uint16 { return &a.OutboundPort }),
	bind(flagInboundPort, "z", "port of the proxy that inbound connections are sent to", portCodec,
		func(a *arguments) *uint16 { return &a.InboundPort }),
	bind(flagTunnelPort, "e", "inbound tunnel port of the proxy, never intercepted; empty for none", optionalPortCodec,
		func(a *arguments) *uint16 { return &a.TunnelPort }),
	listFlag(flagUIDs, "u", "user ids of the proxy, separated by commas", idsCodec,
		func(a *arguments) *[]uint32 { return &a.ProxyUIDs }),
	listFlag(flagGIDs, "g", "group ids of the proxy, separated by commas", idsCodec,
		func(a *arguments) *[]uint32 { return &a.ProxyGIDs }),
	bind(flagMode, "m", "how inbound connections reach the proxy: REDIRECT or TPROXY", modeCodec,
		func(a *arguments) *Mode { return &a.mode }),
	listFlag("istio-inbound-ports", "b", "inbound ports to intercept; * for all but 22 (ssh), as Istio has it, empty for none", portsCodec,
		func(a *arguments) *Ports { return &a.InboundPorts }),
	listFlag("istio-local-exclude-ports", "d", "inbound ports to exclude", portRangesCodec,
		func(a *arguments) *PortRanges { return &a.InboundExcludePorts }),
	listFlag("istio-service-cidr", "i", "destinations to intercept; * for all, empty for none", cidrsCodec,
		func(a *arguments) *CIDRs { return &a.OutboundCIDRs }),
	listFlag("istio-service-exclude-cidr", "x", "destinations to exclude", prefixesCodec,
		func(a *arguments) *Prefixes { return &a.OutboundExcludeCIDRs }),
	listFlag("istio-outbound-ports", "q", "destination ports to intercept even outside -i", portRangesCodec,
		func(a *arguments) *PortRanges { return &a.OutboundPorts }),
	listFlag("istio-local-outbound-ports-exclude", "o", "destination ports to exclude", portRangesCodec,
		func(a *arguments) *PortRanges { return &a.OutboundExcludePorts }),
	listFlag(flagVirtual, "k", "interfaces of virtual machines, whose inbound traffic counts as outbound", interfacesCodec,
		func(a *arguments) *[]string { return &a.VirtualInterfaces }),
	listFlag(flagExcludeInterfaces, "c", "interfaces to exclude", interfacesCodec,
		func(a *arguments) *[]string { return &a.ExcludeInterfaces }),
	bind(flagMark, "t", "packet mark of TPROXY", markCodec,
		func(a *arguments) *uint32 { return &a.Mark }),
	bind("istio-inbound-tproxy-route-table", "r", "routing table of TPROXY, and in REDIRECT of the IPv6 hop to the app", routeTableCodec,
		func(a *arguments) *uint32 { return &a.RouteTable }),
}

// moreFlags also state what to intercept. Args prints those whose value is not the
// default of every version.
var moreFlags = []flagDef{
	boolFlag(flagRedirectDNS, "", "send DNS queries, udp and tcp, to the proxy", func(a *arguments) *bool { return &a.DNS.Redirect }),
	boolFlag(flagCaptureAll, "", "capture DNS queries to any server, not only to the pod's resolvers",
		func(a *arguments) *bool { return &a.DNS.All }),
	listFlag(flagDNSServers, "", "the pod's resolvers; empty for those of /etc/resolv.conf", addressesCodec,
		func(a *arguments) *Prefixes { return &a.DNS.Servers }),
	bind(flagDNSPort, "", "port of the proxy that DNS queries are sent to", portCodec, func(a *arguments) *uint16 { return &a.DNS.Port }),
	listFlag(flagUDPPorts, "", "inbound udp ports to intercept (tproxy)", portRangesCodec,
		func(a *arguments) *PortRanges { return &a.UDPPorts }),
	listFlag(flagRejectUDP, "", "inbound udp ports to reject, so that clients fall back to tcp (tproxy)", portRangesCodec,
		func(a *arguments) *PortRanges { return &a.RejectUDPPorts }),
	boolFlag(flagDropInvalid, "", "drop inbound tcp packets that belong to no connection",
		func(a *arguments) *bool { return &a.DropInvalid }),
	listFlag(flagOwnerGroups, "", "groups whose connections are intercepted; * for all", groupsCodec,
		func(a *arguments) *Groups { return &a.OwnerGroups }),
	listFlag(flagExcludeOwnerGroups, "", "groups whose connections are not intercepted", idsCodec,
		func(a *arguments) *[]uint32 { return &a.ExcludeOwnerGroups }),
	bind("host-ipv4-loopback-cidr", "", "what counts as the IPv4 loopback address", loopbackCodec,
		func(a *arguments) *netip.Prefix { return &a.LoopbackCIDR }),
	boolFlag(flagNoConntrack, "", "keep the state in marks of sockets and track no connection (tproxy, backend nftables)",
		func(a *arguments) *bool { return &a.NoConntrack }),
}

// optionFlags are Shunt's own flags, and those of Istio that concern the run.
var optionFlags = []flagDef{
	bind(flagBackend, "", "auto, nft, nftables or legacy", backendCodec, func(a *arguments) *Backend { return &a.Backend }),
	bind("ipv6", "", "auto (where the namespace has an IPv6 address), on or off", ipv6Codec,
		func(a *arguments) *IPv6 { return &a.IPv6 }),
	bind("netns", "", "path of the network namespace to work in; empty for that of the process", netnsCodec,
		func(a *arguments) *string { return &a.NetNS }),
	bind(flagShare, "", "folder to leave this program and the pod's resolvers in, for the proxy; empty for none", shareCodec,
		func(a *arguments) *string { return &a.Share }),
	bind(flagEnvoy, "", "settings of Envoy in JSON, {} for the defaults; leaves its bootstrap in that folder", textCodec,
		func(a *arguments) *string { return &a.Envoy }),
	boolFlag(flagDryRun, "n", "print the rules and change nothing", func(a *arguments) *bool { return &a.DryRun }),
	boolFlag(flagVerify, "", "compare the namespace with the rules, probe it, and change nothing",
		func(a *arguments) *bool { return &a.Verify }),
	boolFlag(flagRemove, "", "delete all rules and routing of Shunt", func(a *arguments) *bool { return &a.Remove }),
	boolFlag(flagSkipVerify, "", "do not verify after applying", func(a *arguments) *bool { return &a.SkipVerify }),
	boolFlag(flagProve, "",
		"first prove for every connection, with the rules of others here, what shunt prove states; refuse what is not so",
		func(a *arguments) *bool { return &a.Prove }),
}

// istioFlag is one of the arguments of Istio's init container, which must work
// unchanged. It sets another program's log level and has no effect here.
var istioFlag = flagDef{
	name: "log_output_level", usage: "accepted because Istio passes it; has no effect",
	set: func(*arguments, string) error { return nil },
	get: func(*arguments) string { return "" },
}

// systemFlag is separate: Args prints it if -m has no word for the system.
var systemFlag = bind(flagSystem, "", "redirect, tproxy, ambient or legacy; -m has Istio's words for the first two", systemCodec,
	func(a *arguments) *System { return &a.system })
