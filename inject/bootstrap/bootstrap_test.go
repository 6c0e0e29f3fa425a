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
	originalsrcv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_src/v3"
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
	golden := map[string]bootstrap.Options{"dns": options(interception.ModeRedirect), "plain": options(interception.ModeTProxy)}
	for _, mode := range modes {
		golden[strings.ToLower(string(mode))] = options(mode)
	}
	everything, plain := golden["dns"], golden["plain"]
	everything.IPv6, everything.DNSPort = false, interception.DefaultDNSPort
	plain.IPv4, plain.ProtocolDetection = false, false
	golden["dns"], golden["plain"] = everything, plain
	for name, opts := range golden {
		t.Run(name, func(t *testing.T) {
			text, err := bootstrap.JSON(mustNew(t, opts))
			if err != nil {
				t.Fatal(err)
			}
			var readable bytes.Buffer
			if err := json.Indent(&readable, text, "", "  "); err != nil {
				t.Fatal(err)
			}
			readable.WriteByte('\n')
			file := filepath.Join("testdata", name+".json")
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

func TestRefusedOptions(t *testing.T) {
	for want, spoil := range map[string]func(*bootstrap.Options){
		`mode: invalid value "redirect"`: func(o *bootstrap.Options) { o.Mode = "redirect" },
		"families: none":                 func(o *bootstrap.Options) { o.IPv4, o.IPv6 = false, false },
		"mark: invalid value 0":          func(o *bootstrap.Options) { o.Mode, o.Mark = interception.ModeTProxy, 0 },
		"ports: invalid value 0":         func(o *bootstrap.Options) { o.AdminPort = 0 },
		"DNS port: invalid value 15090":  func(o *bootstrap.Options) { o.DNSPort = o.MetricsPort },
		`"80x"`:                          func(o *bootstrap.Options) { o.ServerFirstPorts = "80x" },
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
		interception.ModeNone:     "%[1]s:15006 %[1]s:15001 %[1]s:15021 %[1]s:15090",
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
				"InboundPassthroughClusterIpv4": "127.0.0.6", "InboundPassthroughClusterIpv4AbsoluteForm": "127.0.0.6",
				"InboundPassthroughClusterIpv4LastRequest": "127.0.0.6",
				"InboundPassthroughClusterIpv6":            "::6", "InboundPassthroughClusterIpv6AbsoluteForm": "::6",
				"InboundPassthroughClusterIpv6LastRequest": "::6",
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
