package e2e_test

import (
	"context"
	"os"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// previousVariable names a folder with the config of an earlier commit, whose images are in the
// cluster.
const previousVariable = "SHUNT_E2E_PREVIOUS"

const current = "testdata/default"

var _ = Describe("another installation", Serial, Ordered, func() {
	BeforeAll(func(ctx SpecContext) { uninstall(ctx, current) })
	AfterAll(func(ctx SpecContext) { install(ctx, current) })

	It("of an earlier commit is upgraded with pods running, and no pod is created without the proxy", func(ctx SpecContext) {
		previous := os.Getenv(previousVariable)
		if previous == "" && os.Getenv(nodeVariable) != "" {
			Fail("this clone has no earlier commit to upgrade from: git fetch --unshallow, or name one in PREVIOUS")
		}
		if previous == "" { // the cluster was made without earlier images
			Skip("no earlier commit: " + previousVariable + " names no folder")
		}
		install(ctx, previous+"/config/default")
		namespace := newNamespace(ctx, true)
		create(ctx, newPod(namespace, "old"))
		old := ready(ctx, namespace, "old")
		asked := newStream(ctx, newNamespace(ctx, true), true)

		install(ctx, current)
		answers(ctx)
		create(ctx, newPod(namespace, "new"))
		fresh := ready(ctx, namespace, "new")
		asked.stop()
		asked.kept(ctx, true)
		AddReportEntry("during the upgrade: " + asked.soFar().String())
		Expect(asked.soFar().wrong).To(BeZero())
		// How an earlier webhook ends cannot be changed any more. Another spec checks that the
		// present one denies nothing during a rollout.
		for reason := range asked.soFar().reasons {
			Expect(reason).To(ContainSubstring("failed calling webhook"))
		}

		again := ready(ctx, namespace, "old")
		Expect(again.UID).To(Equal(old.UID))
		for _, status := range again.Status.InitContainerStatuses {
			Expect(status.RestartCount).To(BeZero(), "%s of the old pod was started again", status.Name)
		}
		Expect(call(ctx, namespace, "old", url(fresh.Status.PodIP, "8080"))).To(Equal(proxies[true]))
		Expect(call(ctx, namespace, "new", url(old.Status.PodIP, "8080"))).To(Equal(proxies[true]))
		uninstall(ctx, current)
	})

	It("without cert-manager makes its own certificate, and renews it", func(ctx SpecContext) {
		const selfSigned = "testdata/self-signed"
		apply(ctx, selfSigned)
		answers(ctx)
		namespace := newNamespace(ctx, true)
		create(ctx, newPod(namespace, "first"))
		Expect(injected(ready(ctx, namespace, "first"))).To(BeTrue())

		By("a new certificate of the same CA")
		got := underStreams(ctx, func(*stream) { remade(ctx, "/data/tls.crt") })
		Expect(got.denied).To(BeZero())
		By("a new CA, which an API server may trust later than a replica serves its certificate")
		underStreams(ctx, func(*stream) { remade(ctx, "/data") })
		uninstall(ctx, selfSigned)
	})
})

// remade deletes a part of the webhook's own Secret, and waits until every replica serves another
// certificate.
func remade(ctx context.Context, part string) {
	GinkgoHelper()
	before, err := certificate(ctx)
	Expect(err).NotTo(HaveOccurred())
	kubectl(ctx, "-n", system, "patch", "secret", "shunt-webhook-cert", "--type=json", "-p", `[{"op":"remove","path":"`+part+`"}]`)
	Eventually(ctx, certificate).WithTimeout(60 * time.Second).WithPolling(200 * time.Millisecond).
		ShouldNot(Or(BeEmpty(), Equal(before)))
	Eventually(ctx, expiries).WithTimeout(60*time.Second).WithPolling(500*time.Millisecond).
		Should(And(HaveLen(2), HaveEach(Equal(expiry(ctx)))), "not every replica serves the new certificate")
}
