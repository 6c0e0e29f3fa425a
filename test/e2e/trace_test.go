package e2e_test

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
)

// traced returns what kubectl shunt trace prints, errors and notes included, and its exit code.
func traced(ctx context.Context, args ...string) (string, int) {
	command := exec.CommandContext(ctx, "kubectl", append([]string{"shunt", "trace"}, args...)...)
	out, _ := command.CombinedOutput()
	return string(out), command.ProcessState.ExitCode()
}

var _ = Describe("kubectl shunt trace", Label(short), func() {
	for _, mode := range []string{"REDIRECT", "TPROXY"} {
		It("reads a running pod of mode "+mode, func(ctx SpecContext) {
			namespace := newNamespace(ctx, true)
			pod := newPod(namespace, "first")
			pod.Annotations[modeKey] = mode
			create(ctx, pod)
			ready(ctx, namespace, "first")
			said, code := traced(ctx, "first", "-n", namespace)
			Expect(code).To(Equal(0), said)
			Expect(said).To(And(
				MatchRegexp(`adding the ephemeral container shunt-trace-\w+ to pod first`),
				MatchRegexp(`(?m)^in +a client calls the pod: .* proxy :15006 -> app`),
				MatchRegexp(`(?m)^out +the app calls a server: .* proxy :15001 -> outside`),
			))
			Expect(strings.Contains(said, "127.0.0.6")).To(Equal(mode == "REDIRECT"), said)
			Expect(said).NotTo(Or(ContainSubstring("Not as the pod asks for"), ContainSubstring("not understood")))
			said, code = traced(ctx, "first", "-n", namespace, "--from", "app", "--to", "192.0.2.1:80")
			Expect(code).To(Equal(0), said)
			Expect(said).To(MatchRegexp(`rule \d+ of \d+: .* \(\d+ packets? so far\)`))
		})
	}

	It("makes a real connection, and says which rules counted it and what the proxy logged", func(ctx SpecContext) {
		namespace := newNamespace(ctx, true)
		create(ctx, newPod(namespace, "first"), newPod(namespace, "second"))
		ready(ctx, namespace, "first")
		to := netip.AddrPortFrom(netip.MustParseAddr(ready(ctx, namespace, "second").Status.PodIP), 8080).String()
		said, code := traced(ctx, "--pod", namespace+"/first", "--from", "app", "--to", to, "--live")
		Expect(code).To(Equal(0), said)
		Expect(said).To(And(
			ContainSubstring("makes one tcp connection to "+to),
			ContainSubstring("A real connection to "+to+" was made"),
			MatchRegexp(`(?m)^ +\d+  IPv\d nat SHUNT_REDIRECT 1: `),
			MatchRegexp(`(?m)^ +The proxy's log: .*`+regexp.QuoteMeta(to)),
		))
	})

	It("names the rules that a running pod lacks", func(ctx SpecContext) {
		namespace := newNamespace(ctx, true)
		create(ctx, newPod(namespace, "first"))
		pod := ready(ctx, namespace, "first")
		pod.Spec.EphemeralContainers = append(pod.Spec.EphemeralContainers, corev1.EphemeralContainer{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon{
				Name: "flush", Image: pod.Spec.InitContainers[0].Image, ImagePullPolicy: corev1.PullIfNotPresent,
				Command: []string{"iptables-nft", "-t", "nat", "-F", "SHUNT_OUTBOUND"},
				SecurityContext: &corev1.SecurityContext{
					RunAsUser: new(int64), RunAsNonRoot: new(bool),
					Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN", "NET_RAW"}},
				},
			},
		})
		Expect(api.SubResource("ephemeralcontainers").Update(ctx, pod)).To(Succeed())
		Eventually(ctx, func(g Gomega) {
			said, code := traced(ctx, "first", "-n", namespace)
			g.Expect(code).To(Equal(0), said)
			g.Expect(said).To(MatchRegexp(`(?m)^# Not as the pod asks for: IPv4: missing: nat -A SHUNT_OUTBOUND .*SHUNT_REDIRECT`))
			g.Expect(said).To(MatchRegexp(`(?m)^out +the app calls a server: .* direct -> outside`))
		}).WithTimeout(2 * time.Minute).WithPolling(2 * time.Second).Should(Succeed())
	})

	It("says what to ask an administrator for", func(ctx SpecContext) {
		namespace := newNamespace(ctx, true)
		create(ctx, newPod(namespace, "first"))
		ready(ctx, namespace, "first")
		config := filepath.Join(GinkgoT().TempDir(), "config")
		Expect(os.WriteFile(config, []byte(kubectl(ctx, "config", "view", "--raw", "--minify", "--flatten")), 0o600)).To(Succeed())
		kubectl(ctx, "-n", namespace, "create", "serviceaccount", "reader")
		kubectl(ctx, "-n", namespace, "create", "rolebinding", "reader", "--clusterrole=view", "--serviceaccount="+namespace+":reader")
		kubectl(ctx, "--kubeconfig", config, "config", "set-credentials", "reader",
			"--token="+kubectl(ctx, "-n", namespace, "create", "token", "reader"))
		kubectl(ctx, "--kubeconfig", config, "config", "set-context", "--current", "--user=reader")
		said, code := traced(ctx, "first", "-n", namespace, "--kubeconfig", config)
		Expect(code).To(Equal(3), said)
		Expect(said).To(And(ContainSubstring("resources: [pods/ephemeralcontainers]"), ContainSubstring("verbs: [patch]")))
		kubectl(ctx, "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=baseline")
		said, code = traced(ctx, "first", "-n", namespace)
		Expect(code).To(Equal(3), said)
		Expect(said).To(ContainSubstring("pod-security.kubernetes.io/enforce: privileged"))
	})
})
