package e2e_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("kubectl shunt check", Label(short), func() {
	It("finds no fault, and sees the certificate that a pod serves", func(ctx SpecContext) {
		namespace := newNamespace(ctx, true)
		create(ctx, newPod(namespace, "first"))
		ready(ctx, namespace, "first")
		found := kubectl(ctx, "shunt", "check", "-n", namespace)
		Expect(found).To(And(
			MatchRegexp(`(?m)^OK +Certificate .* served by Pod shunt-system/shunt-webhook-`),
			ContainSubstring("up to date: 1"),
		))
		Expect(found).NotTo(MatchRegexp(`(?m)^(WARN|FAIL)`))
	})
})
