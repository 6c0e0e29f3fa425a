package interception_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// value is a text, and how it prints once parsed; with invalid set it does not parse.
type value struct {
	text, want string
	invalid    bool
}

func check[T any](t *testing.T, parse func(string) (T, error), format func(T) string, values []value) {
	t.Helper()
	for _, v := range values {
		got, err := parse(v.text)
		switch {
		case v.invalid && err == nil:
			t.Errorf("%q was taken as %q", v.text, format(got))
		case !v.invalid && err != nil:
			t.Errorf("%q: %v", v.text, err)
		case !v.invalid && format(got) != v.want:
			t.Errorf("%q was taken as %q, not %q", v.text, format(got), v.want)
		}
	}
}

func TestParsePorts(t *testing.T) {
	check(t, interception.ParsePorts, interception.Ports.String, []value{
		{text: "*", want: "*"},
		{text: " * ", want: "*"},
		{text: "", want: ""},
		{text: "  ", want: ""},
		{text: "80", want: "80"},
		{text: "443, 80", want: "80,443"},
		{text: "80,81,82", want: "80-82"},
		{text: "1-65535", want: "1-65535"},
		{text: "8000-8100,8050-8200", want: "8000-8200"},
		{text: "8000 - 8100", want: "8000-8100"},
		{text: "65534,65535", want: "65534-65535"},
		{text: "0", invalid: true},
		{text: "65536", invalid: true},
		{text: "-1", invalid: true},
		{text: "+1", invalid: true},
		{text: "0x50", invalid: true},
		{text: "8_0", invalid: true},
		{text: "80,*", invalid: true},
		{text: "80,", invalid: true},
		{text: ",80", invalid: true},
		{text: "80;81", invalid: true},
		{text: "80\n81", invalid: true},
		{text: "90-80", invalid: true},
		{text: "80-90-100", invalid: true},
		{text: "http", invalid: true},
		{text: "１２", invalid: true},
	})
}

func TestParseCIDRs(t *testing.T) {
	check(t, interception.ParseCIDRs, interception.CIDRs.String, []value{
		{text: "*", want: "*"},
		{text: "", want: ""},
		{text: "10.0.0.1", want: "10.0.0.1/32"},
		{text: "fd00::1", want: "fd00::1/128"},
		{text: "10.0.0.1/8", want: "10.0.0.0/8"},
		{text: "fd00::/8, 10.0.0.0/8 ,10.0.0.0/8", want: "10.0.0.0/8,fd00::/8"},
		{text: "0.0.0.0/0,::/0", want: "0.0.0.0/0,::/0"},
		{text: "10.0.0.0/33", invalid: true},
		{text: "fd00::/129", invalid: true},
		{text: "10.0.0", invalid: true},
		{text: "010.0.0.1", invalid: true},
		{text: "fe80::1%eth0", invalid: true},
		{text: "::ffff:10.0.0.1", invalid: true},
		{text: "::ffff:10.0.0.0/104", invalid: true},
		{text: "example.com", invalid: true},
		{text: "*,10.0.0.0/8", invalid: true},
		{text: "10.0.0.0/8,,", invalid: true},
	})
}

func TestParseInterfaces(t *testing.T) {
	join := func(names []string) string {
		spec := interception.Default()
		spec.ExcludeInterfaces = names
		args := interception.Args(spec, interception.DefaultOptions())
		for i, arg := range args {
			if arg == "-c" {
				return args[i+1]
			}
		}
		return ""
	}
	check(t, interception.ParseInterfaces, join, []value{
		{text: "", want: ""},
		{text: "eth0", want: "eth0"},
		{text: "net1, eth0.100,net1", want: "net1,eth0.100"},
		{text: "veth+", want: "veth+"},
		{text: "abcdefghijklmno", want: "abcdefghijklmno"},
		{text: "abcdefghijklmnop", invalid: true},
		{text: "+", invalid: true},
		{text: "a+b", invalid: true},
		{text: "a b", invalid: true},
		{text: "a/b", invalid: true},
		{text: "..", invalid: true},
		{text: "!eth0", invalid: true},
		{text: "eth0\"", invalid: true},
		{text: "eth0\n-j ACCEPT", invalid: true},
	})
}

func TestParseIDs(t *testing.T) {
	spec := interception.Default()
	format := func(ids []uint32) string {
		spec.ProxyUIDs = ids
		return interception.Args(spec, interception.DefaultOptions())[7]
	}
	check(t, interception.ParseIDs, format, []value{
		{text: "", want: ""},
		{text: "0", want: "0"},
		{text: "1337, 1,1337", want: "1337,1"},
		{text: "4294967294", want: "4294967294"},
		{text: "4294967295", invalid: true},
		{text: "-1", invalid: true},
		{text: "root", invalid: true},
		{text: "1,,2", invalid: true},
	})
}

func TestParsePrefixLines(t *testing.T) {
	const accepted = "IPv4 and IPv6 addresses and CIDR ranges such as 10.0.0.0/8 or fd00::/8, separated by commas"
	for text, want := range map[string]string{
		"":                                     "",
		"# nothing\n\n":                        "",
		"10.0.0.0/8":                           "10.0.0.0/8",
		"10.0.0.0/8\r\nfd00::/8 # b\n":         "10.0.0.0/8,fd00::/8",
		"192.0.2.1, 10.0.0.0/8#a\n192.0.2.1\n": "10.0.0.0/8,192.0.2.1/32",
		"10.0.0.0/8\n\n10.0.0.0/33":            `line 3: invalid value "10.0.0.0/33": accepted: ` + accepted,
		"10.0.0.0/8 10.1.0.0/16":               `line 1: invalid value "10.0.0.0/8 10.1.0.0/16": accepted: ` + accepted,
		"::ffff:10.0.0.0/104":                  `line 1: invalid value "::ffff:10.0.0.0/104": accepted: ` + accepted,
	} {
		prefixes, err := interception.ParsePrefixLines(text)
		got := prefixes.String()
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestMerged(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  "",
		"10.0.0.0/8,10.1.0.0/16,10.0.0.0/8": "10.0.0.0/8",
		"10.0.0.0/9,10.128.0.0/9":           "10.0.0.0/8",
		"10.128.0.0/9,11.0.0.0/9":           "10.128.0.0/9,11.0.0.0/9",
		"192.0.2.0,192.0.2.1,192.0.2.2/31,192.0.2.4/30":                 "192.0.2.0/29",
		"0.0.0.0/0,10.0.0.0/8,::/1,8000::/1":                            "0.0.0.0/0,::/0",
		"0.0.0.0/1,128.0.0.0/1,fd00::/8":                                "0.0.0.0/0,fd00::/8",
		"255.255.255.254,255.255.255.255":                               "255.255.255.254/31",
		"2001:db8::/33,2001:db8:8000::/33,2001:db8:4000::/34":           "2001:db8::/32",
		"10.0.0.0/24,10.0.1.0/24,10.0.3.0/24,10.0.2.0/25":               "10.0.0.0/23,10.0.2.0/25,10.0.3.0/24",
		"10.0.0.0/24,10.0.1.0/24,10.0.3.0/24,10.0.2.0/25,10.0.2.128/25": "10.0.0.0/22",
	} {
		prefixes, err := interception.ParsePrefixes(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := prefixes.Merged().String(); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// TestMergedIsTheSame compares random lists with their merged ones, address by address: the same
// addresses are in both, and no two ranges of a merged one could be one.
func TestMergedIsTheSame(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // no secret
	for range 2000 {
		var ranges interception.Prefixes
		for range 1 + random.IntN(40) {
			address := netip.AddrFrom4([4]byte{192, 0, 2, byte(random.IntN(256))})
			ranges = append(ranges, netip.PrefixFrom(address, 24+random.IntN(9)).Masked())
		}
		merged := ranges.Merged()
		for i := range 256 {
			address := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
			contains := func(p netip.Prefix) bool { return p.Contains(address) }
			if slices.ContainsFunc(ranges, contains) != slices.ContainsFunc(merged, contains) {
				t.Fatalf("%s is in one of %s and %s", address, ranges, merged)
			}
		}
		for i, a := range merged {
			for _, b := range merged[i+1:] {
				if a.Overlaps(b) || a.Bits() == b.Bits() && netip.PrefixFrom(a.Addr(), a.Bits()-1).Masked().Contains(b.Addr()) {
					t.Fatalf("%s has %s and %s", merged, a, b)
				}
			}
		}
	}
}
