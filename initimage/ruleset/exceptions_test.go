package ruleset_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

func TestExceptions(t *testing.T) {
	const proxy = "the proxy by uids 1337; the proxy by gids 1337"
	const own = "inbound ports 22, 15008, 15020-15021, 15090; "
	many, cut := []string{}, []string{}
	for i := range 25 {
		prefix := fmt.Sprintf("10.0.%d.0/24", 2*i)
		if many = append(many, prefix); i < 10 {
			cut = append(cut, prefix)
		}
	}
	for args, want := range map[string]string{
		"":                                  own + proxy,
		"-m TPROXY":                         own + proxy,
		"-d 22,9000-9010":                   "inbound ports 22, 9000-9010, 15008; " + proxy,
		"-b 80,443,15000-16000 -d 443,9000": "inbound ports but 80, 443, 15000-16000; inbound ports 443, 15008; " + proxy,
		"--istio-inbound-ports=":            "inbound; " + proxy,
		"-x 169.254.169.254/32 -o 3306":     own + "outbound to 169.254.169.254/32; outbound to ports 3306; " + proxy,
		"--istio-service-cidr=":             own + "outbound; " + proxy,
		"-i 10.0.0.0/8":                     own + "outbound but to 10.0.0.0/8; " + proxy,
		"-i 10.0.0.0/8 -q 5432":             own + "outbound but to 10.0.0.0/8, and to ports 5432; " + proxy,
		"--istio-service-cidr= -q 5432":     own + "outbound but to ports 5432; " + proxy,
		"-c eth1,eth2 -u 1,2 -g 3":          own + "interfaces eth1, eth2; the proxy by uids 1, 2; the proxy by gids 3",
		"--outbound-owner-groups=7":         own + "outbound but of gids 7; " + proxy,
		"--outbound-owner-groups-exclude=8": own + "outbound of gids 8; " + proxy,
		"--system ambient":                  "inbound ports 15008; the proxy by mark 0x539",
		"--system legacy":                   "the proxy by uids 1337",
		"-x " + strings.Join(many, ","):     own + "outbound to " + strings.Join(cut, ", ") + " and 15 more; " + proxy,
	} {
		spec, _, err := interception.ParseArgs(strings.Fields(args))
		if err != nil {
			t.Errorf("%s: %v", args, err)
		} else if got := ruleset.Exceptions(spec); got != want {
			t.Errorf("%s:\n got %s\nwant %s", args, got, want)
		}
	}
}
