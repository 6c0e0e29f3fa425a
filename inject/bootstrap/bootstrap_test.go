package bootstrap_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	originalsrcv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_src/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/bootstrap"
)

var update = flag.Bool("update", false, "rewrite the wanted bootstraps in testdata")

var modes = []interception.Mode{interception.ModeRedirect, interception.ModeTProxy, interception.ModeNone}

func options(mode interception.Mode) bootstrap.Options {
	opts := bootstrap.DefaultOptions()
	opts.Mode = mode
	return opts
}

func mustNew(t *testing.T, opts bootstrap.Options) *bootstrapv3.Bootstrap {
	t.Helper()
	made, err := bootstrap.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestGolden(t *testing.T) {
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			text, err := bootstrap.JSON(mustNew(t, options(mode)))
			if err != nil {
				t.Fatal(err)
			}
			var readable bytes.Buffer
			if err := json.Indent(&readable, text, "", "  "); err != nil {
				t.Fatal(err)
			}
			readable.WriteByte('\n')
			file := filepath.Join("testdata", strings.ToLower(string(mode))+".json")
			if *update {
				if err := os.WriteFile(file, readable.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), readable.String()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		})
	}
}

// TestTextIsAlwaysTheSame guards against the spaces that protojson adds at
// random, and against the order of maps.
func TestTextIsAlwaysTheSame(t *testing.T) {
	first, err := bootstrap.Text(options(interception.ModeTProxy))
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		text, err := bootstrap.JSON(mustNew(t, options(interception.ModeTProxy)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first, string(text)); diff != "" {
			t.Fatalf("made again (-first +again):\n%s", diff)
		}
	}
	if strings.ContainsAny(first, "$\n") {
		t.Error("the text has characters that Kubernetes or a YAML reader would act on")
	}
}

func TestRefusedOptions(t *testing.T) {
	for want, spoil := range map[string]func(*bootstrap.Options){
		`mode: invalid value "redirect"`: func(o *bootstrap.Options) { o.Mode = "redirect" },
		"families: none":                 func(o *bootstrap.Options) { o.IPv4, o.IPv6 = false, false },
		"mark: invalid value 0":          func(o *bootstrap.Options) { o.Mode, o.Mark = interception.ModeTProxy, 0 },
		"ports: invalid value 0":         func(o *bootstrap.Options) { o.AdminPort = 0 },
		"ports: invalid value 15001":     func(o *bootstrap.Options) { o.InboundPort = o.OutboundPort },
	} {
		opts := bootstrap.DefaultOptions()
		spoil(&opts)
		if _, err := bootstrap.New(opts); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %s", err, want)
		}
		if _, err := bootstrap.Text(opts); err == nil {
			t.Errorf("%s: Text accepts what New refuses", want)
		}
	}
}

// TestListenersOfEachFamily lists what is bound, where, in every combination.
func TestListenersOfEachFamily(t *testing.T) {
	want := map[interception.Mode]string{
		interception.ModeRedirect: "%[1]s:15006 %[1]s:15001 %[1]s:15021 %[1]s:15090",
		interception.ModeTProxy:   "%[1]s:15006 %[1]s:15001 %[1]s:15021 %[1]s:15090",
		interception.ModeNone:     "%[1]s:15021 %[1]s:15090",
	}
	for _, mode := range modes {
		for families, hosts := range map[[2]bool][]string{
			{true, true}: {"0.0.0.0", "::"}, {true, false}: {"0.0.0.0"}, {false, true}: {"::"},
		} {
			opts := options(mode)
			opts.IPv4, opts.IPv6 = families[0], families[1]
			var wanted, bound []string
			for _, host := range hosts {
				wanted = append(wanted, fmt.Sprintf(want[mode], host))
			}
			for _, l := range mustNew(t, opts).StaticResources.Listeners {
				at := l.GetAddress().GetSocketAddress()
				bound = append(bound, fmt.Sprintf("%s:%d", at.GetAddress(), at.GetPortValue()))
				if at.GetIpv4Compat() {
					t.Errorf("%s %v: listener %s takes both families", mode, families, l.Name)
				}
			}
			if diff := cmp.Diff(strings.Join(wanted, " "), strings.Join(bound, " ")); diff != "" {
				t.Errorf("%s %v: bound (-want +got):\n%s", mode, families, diff)
			}
		}
	}
}

// TestPassthroughListeners: a connection to the listener's own port ends in
// the black hole, all others go on, and nothing ends a connection for idling.
func TestPassthroughListeners(t *testing.T) {
	wantCluster := map[string]string{
		"virtualInbound": "InboundPassthroughClusterIpv4", "virtualInbound_v6": "InboundPassthroughClusterIpv6",
		"virtualOutbound": "PassthroughCluster", "virtualOutbound_v6": "PassthroughCluster",
	}
	for _, mode := range []interception.Mode{interception.ModeRedirect, interception.ModeTProxy} {
		seen := 0
		for _, l := range mustNew(t, options(mode)).StaticResources.Listeners {
			cluster, is := wantCluster[l.Name]
			if !is {
				continue
			}
			seen++
			chains := map[uint32]string{}
			for _, chain := range l.FilterChains {
				var proxy tcpproxyv3.TcpProxy
				unwrap(t, chain.Filters[0], &proxy)
				chains[chain.GetFilterChainMatch().GetDestinationPort().GetValue()] = proxy.GetCluster()
				if proxy.IdleTimeout == nil || proxy.IdleTimeout.AsDuration() != 0 {
					t.Errorf("%s: idle timeout is %v, want 0 said outright", l.Name, proxy.IdleTimeout)
				}
			}
			want := map[uint32]string{l.Address.GetSocketAddress().GetPortValue(): "BlackHoleCluster", 0: cluster}
			if diff := cmp.Diff(want, chains); diff != "" {
				t.Errorf("%s: port to cluster (-want +got):\n%s", l.Name, diff)
			}
			if l.GetUseOriginalDst().GetValue() {
				t.Errorf("%s hands connections to other listeners", l.Name)
			}
			checkAccessLog(t, l)
		}
		if seen != len(wantCluster) {
			t.Errorf("%s: %d of %d pass-through listeners", mode, seen, len(wantCluster))
		}
	}
}

func checkAccessLog(t *testing.T, l *listenerv3.Listener) {
	t.Helper()
	if len(l.AccessLog) != 1 {
		t.Fatalf("%s has %d access logs, want 1", l.Name, len(l.AccessLog))
	}
	var log streamv3.StdoutAccessLog
	if err := l.AccessLog[0].GetTypedConfig().UnmarshalTo(&log); err != nil {
		t.Fatal(err)
	}
	fields := log.GetLogFormat().GetJsonFormat().AsMap()
	for _, name := range []string{
		"upstream_cluster", "upstream_host", "upstream_local_address", "downstream_local_address", "downstream_remote_address",
	} {
		if want := "%" + strings.ToUpper(name) + "%"; fields[name] != want {
			t.Errorf("%s: log field %s is %v, want %s", l.Name, name, fields[name], want)
		}
	}
	if fields["listener"] != l.Name || !strings.Contains(strings.ToLower(l.Name), fields["direction"].(string)) {
		t.Errorf("%s logs listener %v and direction %v", l.Name, fields["listener"], fields["direction"])
	}
}

// TestSourceAddress: what the application sees as its client.
func TestSourceAddress(t *testing.T) {
	for _, mode := range modes {
		made := mustNew(t, options(mode))
		source := map[string]string{}
		for _, c := range made.StaticResources.Clusters {
			if from := c.GetUpstreamBindConfig().GetSourceAddress(); from != nil {
				source[c.Name] = from.GetAddress()
			}
		}
		var transparent []string
		for _, l := range made.StaticResources.Listeners {
			if l.GetTransparent().GetValue() {
				transparent = append(transparent, fmt.Sprintf("%s mark=%d", l.Name, originalSourceMark(t, l)))
			}
		}
		wantSource, wantTransparent := map[string]string{}, []string(nil)
		switch mode {
		case interception.ModeRedirect:
			wantSource = map[string]string{
				"InboundPassthroughClusterIpv4": "127.0.0.6", "InboundPassthroughClusterIpv6": "::6",
			}
		case interception.ModeTProxy:
			wantTransparent = []string{"virtualInbound mark=1337", "virtualInbound_v6 mark=1337"}
		}
		if diff := cmp.Diff(wantSource, source); diff != "" {
			t.Errorf("%s: clusters that bind (-want +got):\n%s", mode, diff)
		}
		if diff := cmp.Diff(wantTransparent, transparent); diff != "" {
			t.Errorf("%s: transparent listeners (-want +got):\n%s", mode, diff)
		}
	}
}

// originalSourceMark returns the mark of the listener's original_src filter.
func originalSourceMark(t *testing.T, l *listenerv3.Listener) uint32 {
	t.Helper()
	var filter originalsrcv3.OriginalSrc
	for _, f := range l.ListenerFilters {
		if f.Name != "envoy.filters.listener.original_src" {
			continue
		}
		if err := f.GetTypedConfig().UnmarshalTo(&filter); err != nil {
			t.Fatal(err)
		}
	}
	return filter.Mark
}

func unwrap(t *testing.T, filter *listenerv3.Filter, into *tcpproxyv3.TcpProxy) {
	t.Helper()
	if err := filter.GetTypedConfig().UnmarshalTo(into); err != nil {
		t.Fatal(err)
	}
}

func TestAdminIsOnLoopbackOnly(t *testing.T) {
	for _, mode := range modes {
		if host := mustNew(t, options(mode)).Admin.GetAddress().GetSocketAddress().GetAddress(); host != "127.0.0.1" {
			t.Errorf("%s: the admin interface is on %s", mode, host)
		}
	}
}

// TestNoConnectionLimit: Envoy's default is 1024 for all that share a cluster.
func TestNoConnectionLimit(t *testing.T) {
	for _, c := range mustNew(t, options(interception.ModeRedirect)).StaticResources.Clusters {
		if !strings.Contains(c.Name, "Passthrough") {
			continue
		}
		limits := c.GetCircuitBreakers().GetThresholds()
		if len(limits) != 1 || limits[0].GetMaxConnections().GetValue() != 1<<32-1 {
			t.Errorf("%s: limits are %v", c.Name, limits)
		}
	}
}
