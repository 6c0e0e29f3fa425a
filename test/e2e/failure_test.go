package e2e_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"os"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// underStreams runs a disturbance while two streams create pods, one in a namespace that asks for the
// proxy and one in a namespace that does not, and reports the counts. No pod may lack a proxy that
// it should have, and the others must not be affected.
func underStreams(ctx context.Context, disturb func(asked *stream)) counts {
	GinkgoHelper()
	asked, exempt := newStream(ctx, newNamespace(ctx, true), true), newStream(ctx, newNamespace(ctx, false), false)
	asked.goesOn(ctx, 30*time.Second)
	disturb(asked)
	answers(ctx)
	asked.goesOn(ctx, 30*time.Second)
	asked.stop()
	exempt.stop()
	AddReportEntry("asked for the proxy: " + asked.soFar().String())
	AddReportEntry("exempt: " + exempt.soFar().String())
	asked.kept(ctx, true)
	exempt.kept(ctx, false)
	Expect(asked.soFar().wrong).To(BeZero(), "pods were made without the proxy")
	Expect(exempt.soFar().wrong).To(BeZero(), "pods were made with a proxy that nobody asked for")
	Expect(exempt.soFar().denied).To(BeZero(), "exempt pods were denied")
	for reason := range asked.soFar().reasons {
		Expect(reason).To(ContainSubstring("failed calling webhook"))
	}
	return asked.soFar()
}

var _ = Describe("under a stream of creations", func() {
	It("a certificate is rotated, and no pod is denied", Label(short), func(ctx SpecContext) {
		served, err := certificate(ctx)
		Expect(err).NotTo(HaveOccurred())
		got := underStreams(ctx, func(*stream) {
			kubectl(ctx, "-n", system, "patch", "certificate", "shunt-webhook", "--subresource=status", "--type=merge", "-p",
				`{"status":{"conditions":[{"type":"Issuing","status":"True","reason":"Rotation","lastTransitionTime":"`+
					time.Now().UTC().Format(time.RFC3339)+`"}]}}`)
			Eventually(ctx, certificate).WithTimeout(60 * time.Second).WithPolling(500 * time.Millisecond).ShouldNot(Equal(served))
			// kubelet updates a mounted Secret within about a minute and a half, with its usual
			// period.
			Eventually(ctx, expiries).WithTimeout(150*time.Second).WithPolling(time.Second).
				Should(And(HaveLen(2), HaveEach(Equal(expiry(ctx)))), "not every replica serves the new certificate")
		})
		Expect(got.denied).To(BeZero())
	})

	It("the webhook is rolled, and no pod is denied", func(ctx SpecContext) {
		got := underStreams(ctx, func(*stream) {
			kubectl(ctx, "-n", system, "rollout", "restart", "deployment/shunt-webhook")
			rolledOut(ctx, system, "deployment/shunt-webhook")
		})
		Expect(got.denied).To(BeZero())
	})

	It("one replica at a time is killed", func(ctx SpecContext) {
		underStreams(ctx, func(asked *stream) {
			for _, name := range strings.Fields(kubectl(ctx, "-n", system, "get", "pods", "-o", "name")) {
				kubectl(ctx, "-n", system, "delete", "--force", "--grace-period=0", name)
				rolledOut(ctx, system, "deployment/shunt-webhook")
				asked.goesOn(ctx, 30*time.Second)
			}
		})
	})

	It("both replicas are gone for a while: pods are denied, and none is created without the proxy", func(ctx SpecContext) {
		got := underStreams(ctx, func(asked *stream) {
			kubectl(ctx, "-n", system, "scale", "deployment/shunt-webhook", "--replicas=0")
			Eventually(ctx, func() int { return asked.soFar().denied }).WithTimeout(60 * time.Second).Should(BeNumerically(">", 20))
			kubectl(ctx, "-n", system, "scale", "deployment/shunt-webhook", "--replicas=2")
			rolledOut(ctx, system, "deployment/shunt-webhook")
		})
		Expect(got.denied).To(BeNumerically(">", 20))
	})
})

var _ = Describe("on the node, under a stream of creations", Label(node), func() {
	It("the API server is killed, and the cluster starts cold without the webhook", func(ctx SpecContext) {
		asked := newStream(ctx, newNamespace(ctx, true), true)
		asked.goesOn(ctx, 30*time.Second)
		kubectl(ctx, "-n", system, "delete", "pods", "--all", "--force", "--grace-period=0")
		for _, part := range []string{"kube-apiserver", "kube-controller-manager", "kubelet"} {
			pid, err := os.ReadFile("/run/node/" + part + ".pid")
			Expect(err).NotTo(HaveOccurred())
			output(ctx, "kill", "-KILL", strings.TrimSpace(string(pid)))
		}
		Eventually(ctx, func() error {
			_, err := tryKubectl(ctx, "get", "--raw", "/readyz")
			return err
		}).WithTimeout(90 * time.Second).WithPolling(500 * time.Millisecond).Should(Succeed())
		rolledOut(ctx, system, "deployment/shunt-webhook")
		answers(ctx)
		asked.goesOn(ctx, 60*time.Second)
		asked.stop()
		asked.kept(ctx, true)
		AddReportEntry("asked for the proxy: " + asked.soFar().String())
		Expect(asked.soFar().wrong).To(BeZero(), "pods were made without the proxy")
	})
})

// expiry returns when the certificate in the webhook's Secret expires.
func expiry(ctx context.Context) float64 {
	GinkgoHelper()
	encoded, err := certificate(ctx)
	Expect(err).NotTo(HaveOccurred())
	block, _ := pem.Decode([]byte(encoded))
	Expect(block).NotTo(BeNil())
	leaf, err := x509.ParseCertificate(block.Bytes)
	Expect(err).NotTo(HaveOccurred())
	return float64(leaf.NotAfter.Unix())
}

// expiries returns when the certificates expire that the replicas serve, from their metrics.
func expiries(ctx context.Context) ([]float64, error) {
	pods := &corev1.PodList{}
	if err := api.List(ctx, pods, client.InNamespace(system)); err != nil {
		return nil, err
	}
	all := []float64{}
	for _, pod := range pods.Items {
		families, err := metrics(ctx, "/api/v1/namespaces/"+system+"/pods/"+pod.Name+":8080/proxy/metrics")
		if err != nil {
			return nil, err
		}
		for _, metric := range families["shunt_webhook_certificate_expiry_timestamp_seconds"].GetMetric() {
			all = append(all, metric.GetGauge().GetValue())
		}
	}
	return all, nil
}

// certificate returns the content of the webhook's Secret.
func certificate(ctx context.Context) (string, error) {
	secret := &corev1.Secret{}
	err := api.Get(ctx, client.ObjectKey{Namespace: system, Name: "shunt-webhook-cert"}, secret)
	return string(secret.Data["tls.crt"]), err
}
