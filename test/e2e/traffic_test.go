package e2e_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kubeclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// proxies are the addresses that calls come from if the proxy does not keep its client's address.
var proxies = map[bool]string{true: "127.0.0.6", false: "::6"}

var _ = Describe("traffic", Label(short), func() {
	It("comes from the proxy's address by REDIRECT, and after a patch to TPROXY from the client's", switchModes)

	It("passes between pods with and without the proxy, both ways", func(ctx SpecContext) {
		namespace := newNamespace(ctx, true)
		plain, tproxy := newPod(namespace, "plain"), newPod(namespace, "tproxy")
		plain.Labels["sidecar.istio.io/inject"], tproxy.Annotations[modeKey] = "false", "TPROXY"
		create(ctx, plain, tproxy, newPod(namespace, "redirect"))
		pods := map[string]*corev1.Pod{}
		for _, name := range []string{"plain", "tproxy", "redirect"} {
			pods[name] = ready(ctx, namespace, name)
		}
		for _, from := range pods {
			for _, to := range pods {
				if from == to {
					continue
				}
				wanted := from.Status.PodIP
				if to.Name == "redirect" {
					wanted = proxies[true]
				}
				Expect(call(ctx, namespace, from.Name, url(to.Status.PodIP, "8080"))).To(Equal(wanted), "%s to %s", from.Name, to.Name)
			}
		}
	})
})

var _ = Describe("a pod's end", Label(short), func() {
	DescribeTable("does not wait for idle clients, and what the application sends last arrives", func(ctx SpecContext, mode string) {
		namespace := newNamespace(ctx, true)
		server, client := newPod(namespace, "server"), newPod(namespace, "client")
		if mode == "" {
			server.Labels["sidecar.istio.io/inject"] = "false"
		}
		server.Annotations[modeKey], client.Labels["sidecar.istio.io/inject"] = mode, "false"
		server.Spec.TerminationGracePeriodSeconds = new(int64(600))
		create(ctx, server)
		server = ready(ctx, namespace, "server")
		Expect(injected(server)).To(Equal(mode != ""))
		client.Spec.RestartPolicy = corev1.RestartPolicyNever
		client.Spec.Containers[0].Args = []string{"hold", net.JoinHostPort(server.Status.PodIP, "9001")}
		create(ctx, client)
		said := func() string {
			out, err := tryKubectl(ctx, "-n", namespace, "logs", "client")
			return fmt.Sprint(out, err)
		}
		Eventually(ctx, said).WithTimeout(90 * time.Second).WithPolling(200 * time.Millisecond).Should(ContainSubstring("holding 10"))

		start := time.Now()
		Expect(api.Delete(ctx, server)).To(Succeed())
		Eventually(ctx, func() bool { return apierrors.IsNotFound(api.Get(ctx, kubeclient.ObjectKeyFromObject(server), server)) }).
			WithTimeout(90*time.Second).WithPolling(100*time.Millisecond).Should(BeTrue(), "the pod waits for its idle clients")
		GinkgoWriter.Printf("%q: gone after %s\n", mode, time.Since(start).Round(100*time.Millisecond))
		Eventually(ctx, said).WithTimeout(30 * time.Second).WithPolling(200 * time.Millisecond).Should(ContainSubstring("whole: 10"))
	},
		Entry("without a proxy", ""),
		Entry("in REDIRECT", "REDIRECT"),
		Entry("in TPROXY", "TPROXY"),
	)
})

// switchModes calls a server in REDIRECT and, after a patch of its Deployment, in TPROXY.
func switchModes(ctx SpecContext) {
	namespace := newNamespace(ctx, true)
	service := newService(namespace, "server")
	create(ctx, newDeployment(namespace, "server"), service, newPod(namespace, "client"))
	client := ready(ctx, namespace, "client")

	By("REDIRECT: from the proxy's address, whoever calls")
	server := podOf(ctx, namespace, "server")
	Expect(injected(server)).To(BeTrue())
	for _, to := range destinations(server, service) {
		Expect(call(ctx, namespace, client.Name, to.url)).To(Equal(proxies[to.v4]), "from the client to %s", to.url)
		callItself(ctx, server, to)
	}
	Expect(kubectl(ctx, "-n", namespace, "logs", server.Name, "-c", "app")).To(ContainSubstring("from 127.0.0.6"))

	By("TPROXY: from the client's own address")
	kubectl(ctx, "-n", namespace, "patch", "deployment", "server", "-p",
		`{"spec":{"template":{"metadata":{"annotations":{"`+modeKey+`":"TPROXY"}}}}}`)
	rolledOut(ctx, namespace, "deployment/server")
	server = podOf(ctx, namespace, "server")
	for _, to := range destinations(server, service) {
		Expect(call(ctx, namespace, client.Name, to.url)).To(Equal(addressOf(client, to.v4)), "from the client to %s", to.url)
		callItself(ctx, server, to)
	}
	Expect(kubectl(ctx, "-n", namespace, "logs", server.Name, "-c", "app")).
		To(ContainSubstring("from " + client.Status.PodIP))
}

// callItself lets a pod call itself: by its own address, which bypasses the proxy, and through its
// Service, which must answer whatever the source address that kube-proxy gives to the connection.
func callItself(ctx context.Context, pod *corev1.Pod, to destination) {
	GinkgoHelper()
	wanted := Not(BeEmpty())
	if !to.service {
		wanted = Equal(addressOf(pod, to.v4))
	}
	Expect(call(ctx, pod.Namespace, pod.Name, to.url)).To(wanted, "from the pod itself to %s", to.url)
}

// destination is the destination of a connection to a server.
type destination struct {
	url     string
	v4      bool
	service bool
}

// destinations returns the addresses of a pod and of its Service, in each family that the cluster has.
func destinations(pod *corev1.Pod, service *corev1.Service) []destination {
	all := []destination{}
	for _, address := range pod.Status.PodIPs {
		all = append(all, destination{url: url(address.IP, "8080"), v4: netip.MustParseAddr(address.IP).Is4()})
	}
	for _, address := range service.Spec.ClusterIPs {
		all = append(all, destination{url: url(address, "80"), v4: netip.MustParseAddr(address).Is4(), service: true})
	}
	return all
}

// addressOf returns a pod's address of a family.
func addressOf(pod *corev1.Pod, v4 bool) string {
	for _, address := range pod.Status.PodIPs {
		if netip.MustParseAddr(address.IP).Is4() == v4 {
			return address.IP
		}
	}
	return "none"
}
