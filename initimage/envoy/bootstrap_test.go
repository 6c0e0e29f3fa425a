package envoy_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/envoyapi"
)

var update = flag.Bool("update", false, "rewrite the wanted bootstraps in testdata")

var modes = []interception.Mode{interception.ModeRedirect, interception.ModeTProxy, interception.ModeNone}

// variant is one combination of what a bootstrap depends on.
type variant struct {
	mode     interception.Mode
	spec     interception.Spec
	settings envoy.Settings
	host     envoy.Host
}

func defaults(mode interception.Mode) variant {
	return variant{mode, interception.Default(), envoy.DefaultSettings(), envoy.Host{IPv6: true, BindToLoopback: true}}
}

func withHTTP(mode interception.Mode) variant {
	m := defaults(mode)
	m.settings.InboundHTTPPorts, m.settings.OutboundHTTPPorts = "*", "*"
	return m
}

func withoutConntrack() variant {
	m := defaults(interception.ModeTProxy)
	m.spec = interception.DefaultFor(interception.SystemTProxy)
	m.spec.NoConntrack = true
	return m
}

func (m variant) text() string { return string(envoy.Bootstrap(m.mode, m.spec, m.settings, m.host)) }

// read parses and checks a bootstrap with Envoy's own API, strictly.
func (m variant) read(t *testing.T) *bootstrapv3.Bootstrap {
	t.Helper()
	read, err := envoyapi.Parse([]byte(m.text()))
	if err != nil {
		t.Fatal(err)
	}
	validate(t, read)
	return read
}

// validate checks a message, and the configurations of extensions in it, which its own validation
// leaves out.
func validate(t *testing.T, m proto.Message) {
	t.Helper()
	if checked, ok := m.(interface{ ValidateAll() error }); ok {
		if err := checked.ValidateAll(); err != nil {
			t.Error(err)
		}
	}
	if wrapped, ok := m.(*anypb.Any); ok {
		inner, err := wrapped.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		validate(t, inner)
		return
	}
	m.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap() && field.MapValue().Message() != nil:
			value.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				validate(t, v.Message().Interface())
				return true
			})
		case field.IsList() && field.Message() != nil:
			for i := range value.List().Len() {
				validate(t, value.List().Get(i).Message().Interface())
			}
		case !field.IsMap() && !field.IsList() && field.Message() != nil:
			validate(t, value.Message().Interface())
		}
		return true
	})
}

// TestEveryCombinationIsEnvoys checks that Envoy's API knows every field and accepts every value,
// whatever the settings.
func TestEveryCombinationIsEnvoys(t *testing.T) {
	logs := []envoy.AccessLog{envoy.AccessLogAll, envoy.AccessLogTraffic, envoy.AccessLogErrors, envoy.AccessLogNone}
	n := 0
	for _, mode := range modes {
		for _, ipv6 := range []bool{true, false} {
			for i, ports := range []string{"", "*", "80", "80,8080-8090"} {
				n++
				m := defaults(mode)
				m.host, m.spec.DNS.Redirect = envoy.Host{IPv6: ipv6, BindToLoopback: n%3 == 0}, n%2 == 0
				m.settings.InboundHTTPPorts, m.settings.OutboundHTTPPorts = ports, ports
				m.settings.AccessLog, m.settings.AccessLogQueries = logs[n%len(logs)], n%5 == 0
				m.settings.MemoryLimit = int64(i) << 30
				if n%2 == 0 {
					m.settings.Probes = []envoy.Probe{{Port: 80, Path: "/", Bytes: 83}}
					m.host.NodeAddresses = []netip.Addr{netip.MustParseAddr("10.0.0.1")}
				}
				if n%4 == 0 {
					m.settings.StatsMatcher = envoy.StatsMatcher{
						Prefixes: []string{"cluster."}, Suffixes: []string{"_ms"}, Regexps: []string{`"\$(A)`},
					}
				}
				if err := m.settings.Validate(); err != nil {
					t.Fatal(err)
				}
				m.read(t)
			}
		}
	}
}

// TestGolden compares bootstraps that a person can read.
func TestGolden(t *testing.T) {
	ipv4 := defaults(interception.ModeRedirect)
	ipv4.host.IPv6 = false
	dns := defaults(interception.ModeTProxy)
	dns.spec.DNS.Redirect = true
	declared := defaults(interception.ModeRedirect)
	declared.host.IPv6 = false
	declared.settings.InboundHTTPPorts, declared.settings.OutboundHTTPPorts = "8080,9090", "80"
	declared.settings.MemoryLimit = 1 << 30
	declared.settings.AccessLog, declared.settings.Probes = envoy.AccessLogTraffic, []envoy.Probe{
		{Port: 8080, Path: "/live", Bytes: 87}, {Port: 9000, Path: "/ready?full=1", Bytes: 95},
	}
	declared.host.NodeAddresses = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fd00::1")}
	declared.settings.StatsMatcher = envoy.StatsMatcher{Prefixes: []string{"cluster.PassthroughCluster."}, Suffixes: []string{"_length_ms"}}
	untracked := withoutConntrack()
	untracked.host.IPv6 = false
	for name, m := range map[string]variant{
		"redirect-ipv4": ipv4, "tproxy-dns": dns, "declared": declared, "tproxy-no-conntrack": untracked,
	} {
		file := filepath.Join("testdata", name+".yaml")
		if *update {
			if err := os.WriteFile(file, []byte(m.text()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), m.text()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
	}
}

// TestListenersOfEachFamily checks that nothing names a family that the namespace lacks.
func TestListenersOfEachFamily(t *testing.T) {
	const each = "%[1]s:15006 %[1]s:15001 %[1]s:15021 %[1]s:15090"
	for _, mode := range modes {
		for ipv6, hosts := range map[bool][]string{true: {"0.0.0.0", "::"}, false: {"0.0.0.0"}} {
			m := defaults(mode)
			m.host.IPv6 = ipv6
			var wanted, bound []string
			for _, host := range hosts {
				wanted = append(wanted, fmt.Sprintf(each, host))
			}
			for _, l := range m.read(t).StaticResources.Listeners {
				at := l.GetAddress().GetSocketAddress()
				bound = append(bound, fmt.Sprintf("%s:%d", at.GetAddress(), at.GetPortValue()))
			}
			if diff := cmp.Diff(strings.Join(wanted, " "), strings.Join(bound, " ")); diff != "" {
				t.Errorf("%s, IPv6 %t: bound (-want +got):\n%s", mode, ipv6, diff)
			}
			if text := m.text(); !ipv6 && (strings.Contains(text, `"::`) || strings.Contains(text, "_v6")) {
				t.Errorf("%s: there is IPv6 in\n%s", mode, text)
			}
		}
	}
}

// TestSourceAddress checks which client address the app sees.
func TestSourceAddress(t *testing.T) {
	for _, mode := range modes {
		source, transparent := map[string]string{}, []string(nil)
		read := withHTTP(mode).read(t)
		for _, c := range read.StaticResources.Clusters {
			if from := c.GetUpstreamBindConfig().GetSourceAddress().GetAddress(); from != "" {
				source[c.Name] = from
			}
		}
		for _, l := range read.StaticResources.Listeners {
			if l.GetTransparent().GetValue() {
				transparent = append(transparent, l.Name)
			}
		}
		wantSource, wantTransparent := map[string]string{}, []string(nil)
		switch mode {
		case interception.ModeRedirect:
			for _, twin := range []string{"", "AbsoluteForm", "LastRequest"} {
				wantSource["InboundPassthroughClusterIpv4"+twin] = "127.0.0.6"
				wantSource["InboundPassthroughClusterIpv6"+twin] = "::6"
			}
		case interception.ModeTProxy:
			wantTransparent = []string{"virtualInbound", "virtualInbound_v6"}
		}
		if diff := cmp.Diff(wantSource, source); diff != "" {
			t.Errorf("%s: clusters that bind (-want +got):\n%s", mode, diff)
		}
		if diff := cmp.Diff(wantTransparent, transparent); diff != "" {
			t.Errorf("%s: transparent listeners (-want +got):\n%s", mode, diff)
		}
	}
}

// TestBoundToLoopback checks that connections to the app are bound to lo where only that makes the
// kernel reuse their ports, and where the kernel allows it.
func TestBoundToLoopback(t *testing.T) {
	for mode, want := range map[interception.Mode][]string{
		interception.ModeRedirect: {"InboundPassthroughClusterIpv6"},
		interception.ModeTProxy:   {"InboundPassthroughClusterIpv4", "InboundPassthroughClusterIpv6"},
		interception.ModeNone:     nil,
	} {
		m := defaults(mode)
		if diff := cmp.Diff(want, boundClusters(t, m)); diff != "" {
			t.Errorf("%s: clusters that bind to lo (-want +got):\n%s", mode, diff)
		}
		m.host.BindToLoopback = false
		if bound := boundClusters(t, m); bound != nil {
			t.Errorf("%s: %v bind to lo, which this kernel refuses", mode, bound)
		}
	}
}

// TestMarkedSockets checks that without conntrack every socket that Envoy connects has a mark: the
// hops to the app one of their own.
func TestMarkedSockets(t *testing.T) {
	marks := func(bind *corev3.BindConfig) (found []int64) {
		const solSocket, soMark = 1, 36
		for _, option := range bind.GetSocketOptions() {
			if option.Level == solSocket && option.Name == soMark {
				found = append(found, option.GetIntValue())
			}
		}
		return found
	}
	for _, bindToLoopback := range []bool{true, false} {
		for _, ports := range []string{"", "*"} {
			m := withoutConntrack()
			m.host.BindToLoopback, m.settings.InboundHTTPPorts, m.settings.OutboundHTTPPorts = bindToLoopback, ports, ports
			read := m.read(t)
			all := []int64{int64(m.spec.Marks().Proxy)}
			if got := marks(read.GetClusterManager().GetUpstreamBindConfig()); !slices.Equal(got, all) {
				t.Errorf("all sockets have the marks %#x, want %#x", got, all)
			}
			for _, c := range read.StaticResources.Clusters {
				var want []int64
				if strings.HasPrefix(c.Name, "InboundPassthroughCluster") {
					want = []int64{int64(m.spec.Marks().Hop)}
				}
				if got := marks(c.UpstreamBindConfig); !slices.Equal(got, want) || want == nil && c.UpstreamBindConfig != nil {
					t.Errorf("%s has the marks %#x in %v, want %#x", c.Name, got, c.UpstreamBindConfig, want)
				}
			}
		}
	}
	if read := defaults(interception.ModeTProxy).read(t); read.ClusterManager != nil {
		t.Errorf("with conntrack there is %v", read.ClusterManager)
	}
}

// TestTransparentWithoutConntrack checks that then both ways to Envoy are by TPROXY, and only what
// comes in goes on from the client's address.
func TestTransparentWithoutConntrack(t *testing.T) {
	for _, l := range withoutConntrack().read(t).StaticResources.Listeners {
		if passes := strings.HasPrefix(l.Name, "virtual"); l.GetTransparent().GetValue() != passes {
			t.Errorf("%s is transparent: %t, want %t", l.Name, !passes, passes)
		}
		if source := slices.Contains(listenerFilters(l), "original_src"); source != strings.HasPrefix(l.Name, "virtualInbound") {
			t.Errorf("%s connects from the client's address: %t", l.Name, source)
		}
	}
}

func boundClusters(t *testing.T, m variant) (names []string) {
	t.Helper()
	const solSocket, soBindToDevice = 1, 25
	for _, c := range m.read(t).StaticResources.Clusters {
		for _, option := range c.GetUpstreamBindConfig().GetSocketOptions() {
			if option.Level != solSocket || option.Name != soBindToDevice || string(option.GetBufValue()) != "lo\x00" {
				t.Errorf("%s: unknown socket option %v", c.Name, option)
			}
			names = append(names, c.Name)
		}
	}
	return names
}

// TestNothingIsLookedAtByDefault checks that no filter waits for the client's first bytes, and that
// only health checks and metrics are taken for HTTP.
func TestNothingIsLookedAtByDefault(t *testing.T) {
	for _, mode := range modes {
		for _, l := range defaults(mode).read(t).StaticResources.Listeners {
			for _, name := range listenerFilters(l) {
				if name != "original_dst" && name != "original_src" {
					t.Errorf("%s: %s has %s", mode, l.Name, name)
				}
			}
			for _, chain := range append(slices.Clone(l.FilterChains), l.DefaultFilterChain) {
				if slices.Contains([]string{"http", "tls"}, chain.GetName()) {
					t.Errorf("%s: %s has the chain %s", mode, l.Name, chain.Name)
				}
			}
		}
	}
}

// TestLooksOnItsPortsOnly checks that inspectors are disabled for all other ports, and come after
// the client's address is taken. Envoy skips the filters after one that timed out, and a connection
// to the app without that address would come back to the proxy.
func TestLooksOnItsPortsOnly(t *testing.T) {
	m := defaults(interception.ModeTProxy)
	m.settings.InboundHTTPPorts, m.settings.OutboundHTTPPorts = "8080,9090-9091", "*"
	for _, listener := range m.read(t).StaticResources.Listeners {
		want := map[string]string{
			"virtualInbound":  "original_dst original_src tls_inspector http_inspector",
			"virtualOutbound": "original_dst tls_inspector http_inspector",
		}[strings.TrimSuffix(listener.Name, "_v6")]
		if got := strings.Join(listenerFilters(listener), " "); got != want {
			t.Errorf("%s: %s, want %s", listener.Name, got, want)
		}
		for _, filter := range listener.ListenerFilters {
			if !strings.HasSuffix(filter.Name, "_inspector") {
				continue
			}
			for port, looks := range map[string]map[int32]bool{
				"virtualInbound":  {8080: true, 8081: false, 9089: false, 9090: true, 9091: true, 9092: false, 25: false},
				"virtualOutbound": {8080: true, 25: false, 3306: false, 443: true, 5909: false, 5910: true},
			}[strings.TrimSuffix(listener.Name, "_v6")] {
				if disabled := matches(filter.FilterDisabled, port); disabled == looks {
					t.Errorf("%s: %s looks at port %d: %t, want %t", listener.Name, filter.Name, port, !disabled, looks)
				}
			}
		}
	}
}

func listenerFilters(l *listenerv3.Listener) []string {
	var names []string
	for _, filter := range l.ListenerFilters {
		names = append(names, filter.Name[strings.LastIndex(filter.Name, ".")+1:])
	}
	if l.UdpListenerConfig != nil {
		return nil
	}
	return names
}

// matches reports whether a predicate accepts a connection to the port.
func matches(p *listenerv3.ListenerFilterChainMatchPredicate, port int32) bool {
	switch {
	case p.GetNotMatch() != nil:
		return !matches(p.GetNotMatch(), port)
	case p.GetOrMatch() != nil:
		return slices.ContainsFunc(p.GetOrMatch().Rules, func(rule *listenerv3.ListenerFilterChainMatchPredicate) bool {
			return matches(rule, port)
		})
	default:
		r := p.GetDestinationPortRange()
		return r.GetStart() <= port && port < r.GetEnd()
	}
}

// TestDNSListeners lists where queries are accepted.
func TestDNSListeners(t *testing.T) {
	for virtual, want := range map[string]string{
		"":   "UDP 127.0.0.1:15053, TCP 127.0.0.1:15053, UDP ::1:15053, TCP ::1:15053",
		"vm": "UDP 0.0.0.0:15053, TCP 0.0.0.0:15053, UDP :::15053, TCP :::15053",
	} {
		m := defaults(interception.ModeTProxy)
		m.spec.DNS.Redirect = true
		if virtual != "" {
			m.spec.VirtualInterfaces = []string{virtual}
		}
		var got []string
		for _, l := range m.read(t).StaticResources.Listeners {
			at := l.Address.GetSocketAddress()
			if at.GetPortValue() == uint32(interception.DefaultDNSPort) {
				got = append(got, fmt.Sprintf("%s %s:%d", at.Protocol, at.Address, at.GetPortValue()))
			}
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("virtual interfaces %q: %q, want %q", virtual, got, want)
		}
	}
	if strings.Contains(defaults(interception.ModeRedirect).text(), "resolvers.json") {
		t.Error("there is a cluster of resolvers, though DNS is not captured")
	}
}

// TestProbesAreLogged checks that the log leaves out nothing with another setting than traffic, and no
// connection as long as the node's address is not known.
func TestProbesAreLogged(t *testing.T) {
	m := withHTTP(interception.ModeRedirect)
	m.settings.Probes = []envoy.Probe{{Port: 8080, Path: "/live", Bytes: 87}}
	filters := func() string {
		return fmt.Sprintf("%d %d", strings.Count(m.text(), "ExpressionFilter"), strings.Count(m.text(), "kube-probe/"))
	}
	// Each log is written out once.
	for _, log := range []envoy.AccessLog{envoy.AccessLogAll, envoy.AccessLogErrors, envoy.AccessLogNone, envoy.AccessLogTraffic} {
		m.settings.AccessLog, m.host.NodeAddresses = log, []netip.Addr{netip.MustParseAddr("10.0.0.9")}
		want := "0 0"
		if log == envoy.AccessLogTraffic {
			want = "1 1"
		}
		if got := filters(); got != want {
			t.Errorf("%s: %s filters, want %s", log, got, want)
		}
	}
	m.host.NodeAddresses = nil
	if got := filters(); got != "0 1" {
		t.Errorf("without the node's address: %s filters", got)
	}
}

func TestSettingsText(t *testing.T) {
	if text := envoy.DefaultSettings().String(); text != "{}" {
		t.Errorf("the default settings are %s", text)
	}
	for _, text := range []string{
		"{}", `{"healthPort":15022}`, `{"inboundHTTPPorts":"8080","memoryLimit":1073741824}`,
		`{"accessLog":"errors","accessLogQueries":false}`,
		`{"statsMatcher":{"inclusionPrefixes":["a"],"inclusionRegexps":[".*\u0024","\u0024(A)\u0024\u0024"]}}`,
		`{"accessLog":"all","probes":[{"port":8080,"path":"/live","bytes":87}]}`,
		`{"http":{"maxHeaderKB":96,"maxStreams":100,"headerSeconds":60}}`,
	} {
		if settings, err := envoy.ParseSettings(text); err != nil || settings.String() != text {
			t.Errorf("%s is read as %s, %v", text, settings, err)
		}
	}
	for text, want := range map[string]string{
		"":                             "accepted: an object",
		"[]":                           "accepted: an object",
		"{} {}":                        "after the object",
		`{"healthport2":1}`:            "unknown field",
		`{"healthPort":0}`:             "healthPort: invalid value 0; accepted: 1 to 65535",
		`{"inboundHTTPPorts":"80x"}`:   "inboundHTTPPorts",
		`{"outboundHTTPPorts":"0"}`:    "outboundHTTPPorts",
		`{"accessLog":"some"}`:         "accepted: all, traffic, errors, none",
		`{"keepalive":{"probes":128}}`: "keepalive.probes: invalid value 128; accepted: 1 to 127",
		`{"http":{"maxStreams":0}}`:    "http.maxStreams: invalid value 0",
		`{"memoryLimit":-1}`:           "memoryLimit",
		`{"probes":[{"port":80,"path":"a","bytes":9}]}`: "probes[0].path: invalid value \"a\": accepted: a path of at most 200",
		`{"probes":[{"path":"/","bytes":9}]}`:           "probes[0].port: invalid value 0",
		`{"probes":[{"port":80,"path":"/"}]}`:           "probes[0].bytes: invalid value 0",
		`{"statsMatcher":{"inclusionRegexps":["("]}}`:   "statsMatcher.inclusionRegexps[0]: invalid value \"(\"",
	} {
		if _, err := envoy.ParseSettings(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one that says %s", text, err, want)
		}
	}
}

func TestResolvers(t *testing.T) {
	const want = `{"resources":[{"@type":"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment","cluster_name":"dns",` +
		`"endpoints":[{"lb_endpoints":[{"endpoint":{"address":{"socket_address":{"address":"10.0.0.10","port_value":53}}}},` +
		`{"endpoint":{"address":{"socket_address":{"address":"fd00::a","port_value":53}}}}]}]}]}` + "\n"
	servers := []netip.Addr{netip.MustParseAddr("10.0.0.10"), netip.MustParseAddr("fd00::a")}
	if diff := cmp.Diff(want, string(envoy.Resolvers(servers))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
