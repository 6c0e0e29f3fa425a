package envtest_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/shunt-dev/shunt/inject"
)

var _ = Describe("kubectl shunt", Ordered, func() {
	var dir, kubeconfig string

	// kubectl runs the real kubectl, with the plug-in on its PATH.
	kubectl := func(ctx context.Context, stdin string, args ...string) (stdout, stderr string, err error) {
		var out, problems bytes.Buffer
		command := childCommand(ctx, filepath.Join(os.Getenv(assetsVariable), "kubectl"), args...)
		command.Env = append(os.Environ(), "PATH="+dir, "KUBECONFIG="+kubeconfig)
		command.Stdin, command.Stdout, command.Stderr = strings.NewReader(stdin), &out, &problems
		err = command.Run()
		return out.String(), problems.String(), err
	}

	BeforeAll(func(ctx SpecContext) {
		dir = GinkgoT().TempDir()
		Expect(os.Link(buildShunt(ctx), filepath.Join(dir, "kubectl-shunt"))).To(Succeed())
		kubeconfig = filepath.Join(dir, "kubeconfig")
		Expect(os.WriteFile(kubeconfig, environment.KubeConfig, 0o600)).To(Succeed())
	})

	It("shows its usage as it is called", func(ctx SpecContext) {
		help, _, err := kubectl(ctx, "", "shunt", "inject", "--help")
		Expect(err).NotTo(HaveOccurred())
		Expect(help).To(ContainSubstring("\n  kubectl shunt inject -f FILE"))
		_, told, err := kubectl(ctx, "", "shunt", "frobnicate")
		Expect(err).To(MatchError("exit status 2"))
		Expect(told).To(HavePrefix(`kubectl shunt: unknown command "frobnicate"; accepted: `))
	})

	It("injects what kubectl applies, and the webhook leaves that as it is", func(ctx SpecContext) {
		ns := newNamespace(ctx, enabled)
		injected, _, err := kubectl(ctx,
			"apiVersion: v1\nkind: Pod\nmetadata:\n  name: echo\nspec:\n  containers:\n  - name: app\n    image: app\n",
			"shunt", "inject", "-f", "-")
		Expect(err).NotTo(HaveOccurred())
		before := running.count("skipped", inject.ReasonAlreadyInjected)
		_, told, err := kubectl(ctx, injected, "apply", "-n", ns, "-f", "-")
		Expect(err).NotTo(HaveOccurred(), "%s", told)
		pod := &corev1.Pod{}
		Expect(api.Get(ctx, client.ObjectKey{Namespace: ns, Name: "echo"}, pod)).To(Succeed())
		Expect(initContainers(pod)).To(Equal([]string{"shunt-init", "shunt-proxy"}))
		Expect(running.count("skipped", inject.ReasonAlreadyInjected)).To(Equal(before + 1))
	})
})
