package envtest_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
)

// size is the bytes of an object as JSON.
func size(object any) int {
	GinkgoHelper()
	text, err := json.Marshal(object)
	Expect(err).NotTo(HaveOccurred())
	return len(text)
}

var _ = Describe("a configuration with a backend and a file of ranges", Ordered, func() {
	var lines, namespace string
	const count = 1000

	BeforeAll(func(ctx SpecContext) {
		for i := range count {
			lines += fmt.Sprintf("100.%d.%d.128/25 # range %d\n", i/256, i%256, i)
		}
		cfg, err := inject.ParseConfigFile([]byte("apiVersion: shunt.dev/v1alpha1\nkind: InjectorConfiguration\n"+
			"backend: nftables\nexcludeOutboundIPRanges: file:cdn.txt\n"), func(name string) ([]byte, error) {
			Expect(name).To(Equal("cdn.txt"))
			return []byte(lines), nil
		})
		Expect(err).NotTo(HaveOccurred())
		serveCanary(ctx, cfg)
		namespace = newNamespace(ctx, map[string]string{annotation.RevisionKey: "canary"})
		// The API server takes a moment to heed a new configuration.
		Eventually(ctx, func(g Gomega) {
			pod := newPod(namespace, nil)
			g.Expect(api.Create(ctx, pod)).To(Succeed())
			g.Expect(injectedBy(pod)).To(Equal("canary"))
		}).WithTimeout(20 * time.Second).WithPolling(100 * time.Millisecond).Should(Succeed())
	})

	// stored returns what the API server has of a new pod, and what shunt-init reads there.
	stored := func(ctx SpecContext, annotations map[string]string) (*corev1.Pod, interception.Spec, interception.Options) {
		GinkgoHelper()
		pod := newPod(namespace, annotations)
		Expect(api.Create(ctx, pod)).To(Succeed())
		Expect(api.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
		Expect(pod.Spec.InitContainers[0].Name).To(Equal("shunt-init"))
		spec, opts, err := interception.ParseArgs(pod.Spec.InitContainers[0].Args)
		Expect(err).NotTo(HaveOccurred())
		return pod, spec, opts
	}

	It("gives all of them to a pod, and leaves the rules to nftables", func(ctx SpecContext) {
		pod, spec, opts := stored(ctx, nil)
		Expect(opts.Backend).To(Equal(interception.BackendNFTables))
		Expect(pod.Spec.InitContainers[0].SecurityContext.Capabilities.Add).To(ConsistOf(BeEquivalentTo("NET_ADMIN")))
		Expect(spec.OutboundExcludeCIDRs).To(HaveLen(count))
		Expect(spec.OutboundExcludeCIDRs[0].String()).To(Equal("100.0.0.128/25"))
		plain, _, _ := stored(ctx, map[string]string{annotation.ExcludeOutboundIPRangesKey: ""})
		GinkgoWriter.Printf("a pod is %d bytes of JSON with %d ranges, and %d without\n", size(pod), count, size(plain))
	})

	It("lets a pod's annotation have others, or none", func(ctx SpecContext) {
		_, spec, _ := stored(ctx, map[string]string{annotation.ExcludeOutboundIPRangesKey: "192.0.2.0/24"})
		Expect(spec.OutboundExcludeCIDRs.String()).To(Equal("192.0.2.0/24"))
		_, spec, _ = stored(ctx, map[string]string{annotation.ExcludeOutboundIPRangesKey: ""})
		Expect(spec.OutboundExcludeCIDRs).To(BeEmpty())
	})

	It("takes the longest list that an annotation may hold", func(ctx SpecContext) {
		all := make([]string, 10_000)
		for i := range all {
			all[i] = fmt.Sprintf("100.%d.%d.128/25", i/256, i%256)
		}
		pod, spec, _ := stored(ctx, map[string]string{annotation.ExcludeOutboundIPRangesKey: strings.Join(all, ",")})
		Expect(spec.OutboundExcludeCIDRs).To(HaveLen(len(all)))
		GinkgoWriter.Printf("a pod is %d bytes of JSON with %d ranges\n", size(pod), len(all))
	})
})
