//go:build linux

package main

import (
	"context"
	"strings"
	"testing"
	"time"
)

func TestDrainArguments(t *testing.T) {
	for args, want := range map[string]struct {
		admin string
		most  time.Duration
	}{
		"":                                 {"127.0.0.1:15000", 25 * time.Second},
		"--admin=[::1]:1 --duration 1m30s": {"[::1]:1", 90 * time.Second},
		"--duration=0.5s --admin localhost:15000": {"localhost:15000", time.Second / 2},
	} {
		admin, most, err := drainArguments(strings.Fields(args))
		if err != nil || admin != want.admin || most != want.most {
			t.Errorf("%q: %s %s, error %v; want %v", args, admin, most, err, want)
		}
	}
}

func TestDrainRefusesWrongArguments(t *testing.T) {
	for args, want := range map[string]string{
		"--duration=0s": `--duration: invalid value "0s": accepted: `, "--duration=-1s": `"-1s"`, "--duration=25": `"25"`,
		"--duration=soon": `"soon"`, "--admin=127.0.0.1": `--admin: invalid value "127.0.0.1": accepted: `,
		"--admin=:15000": `":15000"`, "--admin=127.0.0.1:0": `"127.0.0.1:0"`, "--admin=127.0.0.1:http": `"127.0.0.1:http"`,
		"--admin": "needs an argument", "--share=/shunt": "--share", "now": `"now"`, "drain": `"drain"`,
	} {
		err := run(context.Background(), append([]string{"drain"}, strings.Fields(args)...), &strings.Builder{})
		if exitCode(err) != exitArguments || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "accepted: ") {
			t.Errorf("%q: %v, want it to say %s and what is accepted", args, err, want)
		}
	}
	err := run(context.Background(), strings.Fields("drain --duration=x --admin=y z"), &strings.Builder{})
	if err == nil || strings.Count(err.Error(), "accepted: ") != 3 {
		t.Errorf("of three wrong arguments: %v", err)
	}
}

// TestDrainIsTheFirstWord checks that after Istio's command word, or a flag, drain is an unexpected
// argument.
func TestDrainIsTheFirstWord(t *testing.T) {
	for _, args := range []string{"istio-iptables drain", "-n drain", "istio-iptables -n drain"} {
		err := run(context.Background(), strings.Fields(args), &strings.Builder{})
		if exitCode(err) != exitArguments || !strings.Contains(err.Error(), `unexpected argument "drain"`) {
			t.Errorf("%q: %v", args, err)
		}
	}
	if err := run(context.Background(), strings.Fields("istio-iptables -n"), &strings.Builder{}); err != nil {
		t.Errorf("Istio's command word alone: %v", err)
	}
}
