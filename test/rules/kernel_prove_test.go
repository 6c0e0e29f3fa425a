//go:build linux

package rules

import (
	"fmt"
	"testing"

	"github.com/shunt-dev/shunt/test/netns"
)

// TestRefusesWhatIsNotProved runs shunt-init --prove beside rules of others. One that takes traffic
// past the proxy is named, with a connection that it takes, and nothing is touched. Without it, and
// beside rules that only block, the rules are applied.
func TestRefusesWhatIsNotProved(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy", "ip", "nft")
	t.Parallel()
	bin := buildShuntInit(t)
	for _, backend := range backends {
		for _, system := range []string{"-m REDIRECT", "-m TPROXY"} {
			t.Run(fmt.Sprintf("%s %s", backend, system), func(t *testing.T) {
				t.Parallel()
				pod := quietLab(t).Pod
				args := argumentsOn(backend, system+" --prove")
				let := "OUTPUT -p tcp -m tcp --dport 9090 -j CT --notrack"
				for _, tool := range []string{"iptables-legacy -t raw ", "ip6tables-nft -t raw "} {
					run(t, pod, "sh", "-c", tool+"-A "+let)
					checkPreflightError(t, pod, pod.Command(t.Context(), bin, args...), "not so", "raw OUTPUT", ":9090, uid 1000")
					run(t, pod, "sh", "-c", tool+"-D "+let)
				}
				run(t, pod, "sh", "-c", "iptables-legacy -t filter -A OUTPUT -p tcp -m tcp --dport 25 -j DROP")
				run(t, pod, bin, args...)
				run(t, pod, bin, append(args, "--verify")...)
				run(t, pod, "sh", "-c", "iptables-legacy -t raw -A "+let)
				checkPreflightError(t, pod, pod.Command(t.Context(), bin, append(args, "--verify")...), "raw OUTPUT")
			})
		}
	}
}

// TestProofNamesAnUnknownMatch refuses what depends on a match that nobody knows.
func TestProofNamesAnUnknownMatch(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy", "ip")
	t.Parallel()
	bin, pod := buildShuntInit(t), quietLab(t).Pod
	run(t, pod, "sh", "-c", "iptables-legacy -t raw -A OUTPUT -m statistic --mode random --probability 0.5 -j CT --notrack")
	checkPreflightError(t, pod, pod.Command(t.Context(), bin, argumentsOn(backends[0], "-m REDIRECT --prove")...),
		"not proved", "statistic")
}
