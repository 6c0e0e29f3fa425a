package interception_test

import (
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
