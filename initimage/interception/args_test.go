package interception_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/rules"
)

var samePrefix = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

// istioArgs are the arguments of Istio's init container.
var istioArgs = []string{
	"-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*", "-d", "15090,15021,15020",
}

func TestIstioArgumentsAreTheDefault(t *testing.T) {
	spec, opts, err := interception.ParseArgs(istioArgs)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(interception.Default(), spec, samePrefix); diff != "" {
		t.Errorf("spec (-default +parsed):\n%s", diff)
	}
	if diff := cmp.Diff(interception.DefaultOptions(), opts); diff != "" {
		t.Errorf("options (-default +parsed):\n%s", diff)
	}
}

func TestArgsOf(t *testing.T) {
	ranges := interception.NewPortRanges(interception.PortRange{First: 80, Last: 80}, interception.PortRange{First: 8000, Last: 8100})
	prefixes, err := interception.ParsePrefixes("fd00::/8, 10.0.0.0/8, 192.0.2.7")
	if err != nil {
		t.Fatal(err)
	}
	spec := interception.Spec{
		System: interception.SystemTProxy, OutboundPort: 1, InboundPort: 2, TunnelPort: 3,
		ProxyUIDs: []uint32{1, 2}, ProxyGIDs: []uint32{0}, InboundPorts: interception.Ports{Ranges: ranges},
		InboundExcludePorts: ranges, OutboundCIDRs: interception.CIDRs{Prefixes: prefixes}, OutboundExcludeCIDRs: prefixes,
		OutboundPorts: ranges, OutboundExcludePorts: ranges,
		VirtualInterfaces: []string{"net1"}, ExcludeInterfaces: []string{"eth1", "net2+"},
		OwnerGroups: interception.Groups{IDs: []uint32{5}}, LoopbackCIDR: netip.MustParsePrefix("127.0.0.0/8"),
		DNS:      interception.DNS{Redirect: true, Servers: prefixes[1:2], Port: 53},
		UDPPorts: ranges[:1], RejectUDPPorts: ranges[1:], DropInvalid: true, Mark: 7, RouteTable: 8,
	}
	opts := interception.Options{
		Backend: interception.BackendLegacy, IPv6: interception.IPv6Off, NetNS: "/run/netns/a", Share: "/shunt", SkipVerify: true,
	}
	parsed, parsedOpts, err := interception.ParseArgs(interception.Args(spec, opts))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]any{spec, opts}, []any{parsed, parsedOpts}, samePrefix); diff != "" {
		t.Errorf("after Args and ParseArgs (-before +after):\n%s", diff)
	}
}

// TestLongLists prints lists that are too long for one argument.
func TestLongLists(t *testing.T) {
	spec := interception.Default()
	for i := range 20_000 {
		addr := netip.AddrFrom4([4]byte{100, byte(i >> 8), byte(i), 0})
		spec.OutboundExcludeCIDRs = append(spec.OutboundExcludeCIDRs, netip.PrefixFrom(addr, 24))
	}
	var odd []interception.PortRange
	for port := 1; port < 1<<16; port += 2 {
		odd = append(odd, interception.PortRange{First: uint16(port), Last: uint16(port)})
	}
	spec.OutboundExcludePorts = interception.NewPortRanges(odd...)
	args := interception.Args(spec, interception.DefaultOptions())
	for _, arg := range args {
		if len(arg) >= interception.MaxArgument {
			t.Errorf("an argument of %d bytes: %.40s…", len(arg), arg)
		}
	}
	again, _, err := interception.ParseArgs(args)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(spec, again, samePrefix); diff != "" {
		t.Errorf("after Args and ParseArgs (-before +after):\n%s", diff)
	}
}

func TestFlagsGivenTwice(t *testing.T) {
	spec, _, err := interception.ParseArgs([]string{"-x", "10.0.0.0/8", "-o", "80", "-x", "10.1.0.0/16, 9.0.0.0/8", "-o", "81"})
	got := spec.OutboundExcludeCIDRs.String() + " " + spec.OutboundExcludePorts.String()
	if want := "9.0.0.0/8,10.0.0.0/8,10.1.0.0/16 80-81"; err != nil || got != want {
		t.Errorf("lists: %s, %v; want %s", got, err, want)
	}
	for args, want := range map[string]string{
		"-p 1 -p 1":             `--envoy-port: invalid value "1": given more than once`,
		"-i * -i 10.0.0.0/8":    `--istio-service-cidr: invalid value "*"`,
		"-b 80 -b *":            `--istio-inbound-ports: invalid value "*"`,
		"-x 10.0.0.0/8 -x nine": `--istio-service-exclude-cidr: invalid value "nine"`,
	} {
		if _, _, err := interception.ParseArgs(strings.Fields(args)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
}

// TestEveryWrongFlagIsNamed also checks that errors.As finds the parts of each error.
func TestEveryWrongFlagIsNamed(t *testing.T) {
	_, _, err := interception.ParseArgs([]string{"-p", "0", "--proxy-gid=wheel", "-m", "tproxy"})
	for _, want := range []string{
		`--envoy-port: invalid value "0": accepted: a port from 1 to 65535`, `--proxy-gid: invalid value "wheel"`, "REDIRECT, TPROXY",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	var flag *interception.FlagError
	var value *interception.ValueError
	if !errors.As(err, &flag) || !errors.As(err, &value) || flag.Flag != "--envoy-port" || value.Value != "0" {
		t.Errorf("first flag %+v, value %+v", flag, value)
	}
}

// FuzzParseArgs checks that arguments are either rejected, each with what is accepted, or equal to
// what they print as.
func FuzzParseArgs(f *testing.F) {
	addCorpus(f)
	f.Add(strings.Join(istioArgs, "\n"))
	f.Add("-m\nTPROXY\n-b\n80,8000-8100\n-x\n10.0.0.0/8,fd00::1\n-c\nnet+\n-t\n0x539\n--ipv6=off")
	f.Add("-p\n0\n--system\nlegacy")
	f.Fuzz(func(t *testing.T, text string) {
		spec, opts, err := interception.ParseArgs(strings.Split(text, "\n"))
		if errors.Is(err, pflag.ErrHelp) {
			return
		}
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if !strings.Contains(line, "accepted") {
					t.Errorf("%q: %q does not say what is accepted", text, line)
				}
			}
			return
		}
		again, optsAgain, err := interception.ParseArgs(interception.Args(spec, opts))
		if err != nil {
			t.Fatalf("%q parses, but not what it prints as: %v", text, err)
		}
		if diff := cmp.Diff([]any{spec, opts}, []any{again, optsAgain}, samePrefix); diff != "" {
			t.Errorf("%q, printed and parsed (-once +twice):\n%s", text, diff)
		}
	})
}

// addCorpus adds the arguments of each rule case as a seed.
func addCorpus(f *testing.F) {
	cases, err := rules.Load("../../test/rules/testdata/cases")
	if err != nil || len(cases) == 0 {
		f.Fatal("no cases to start from", err)
	}
	for _, c := range cases {
		f.Add(strings.Join(c.Args, "\n"))
	}
}
