package e2e_test

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
)

// The image has one program, and no iptables: the rules are in a native table of nf_tables.
var _ = Describe("the init image without a distribution", Label(short), Ordered, func() {
	const scratch = "shunt-init-nftables:dev"
	BeforeAll(func(ctx SpecContext) { useInitImage(ctx, initImage, scratch) }, NodeTimeout(3*time.Minute))
	AfterAll(func(ctx SpecContext) { useInitImage(ctx, scratch, initImage) }, NodeTimeout(3*time.Minute))

	It("intercepts by REDIRECT, and after a patch by TPROXY", switchModes)

	It("captures DNS, and says what it does without iptables", func(ctx SpecContext) {
		namespace := newNamespace(ctx, true)
		server, resolver := newPod(namespace, "server"), newPod(namespace, "resolver")
		resolver.Labels["sidecar.istio.io/inject"] = "false"
		create(ctx, server)
		server = ready(ctx, namespace, "server")
		resolver.Spec.Containers[0].Args = []string{"resolve", server.Status.PodIP}
		resolver.Spec.SecurityContext = &corev1.PodSecurityContext{
			Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}},
		}
		create(ctx, resolver)
		resolver = ready(ctx, namespace, "resolver")
		clients := map[string]*corev1.Pod{}
		for _, mode := range []string{"REDIRECT", "TPROXY"} {
			client := newPod(namespace, "client-"+strings.ToLower(mode))
			client.Annotations[modeKey], client.Annotations["shunt.dev/dnsCapture"] = mode, "resolvers"
			client.Spec.DNSPolicy = corev1.DNSNone
			client.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{resolver.Status.PodIP}}
			create(ctx, client)
			clients[mode] = client
		}
		for mode, client := range clients {
			ready(ctx, namespace, client.Name)
			Expect(kubectl(ctx, "-n", namespace, "logs", client.Name, "-c", "shunt-init")).
				To(MatchRegexp(`over nftables \(there is no iptables-nft\), .*: applied, verified`), mode)
			Expect(call(ctx, namespace, client.Name, url("server.test", "8080"))).To(Equal(proxies[true]), mode)
			Expect(call(ctx, namespace, client.Name, "http://127.0.0.1:15000/stats?filter=udp.dns.downstream_sess_rx_datagrams$")).
				To(MatchRegexp(`: [1-9]`), "%s: no query went through the proxy", mode)
		}
	})
})
