package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Labels of specs.
const (
	short = "short" // for CI
	node  = "node"  // needs the node of hack/node.sh
	agent = "agent" // of the node's agent, on that node too
)

// Variables that hack/e2e.sh sets.
const (
	wantedVariable = "SHUNT_E2E"        // this suite is meant to run, in the cluster of KUBECONFIG
	crdsVariable   = "CERTMANAGER_CRDS" // folder with the definitions of cert-manager's objects
	nodeVariable   = "NODE_STATE"       // set on a node of hack/node.sh
)

func TestCluster(t *testing.T) {
	if os.Getenv(wantedVariable) == "" {
		t.Skip("this suite installs Shunt in a cluster and takes it away again; hack/e2e.sh runs it")
	}
	RegisterFailHandler(Fail)
	suite, reporter := GinkgoConfiguration()
	if os.Getenv(nodeVariable) == "" {
		suite.SkipStrings = append(suite.SkipStrings, "on the node")
	}
	RunSpecs(t, "Cluster", suite, reporter)
}

// api is the administrator's client.
var api client.Client

var _ = BeforeSuite(func(ctx SpecContext) {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	Expect(err).NotTo(HaveOccurred())
	config.QPS = -1 // the client's own rate limit would hide what the cluster does
	api, err = client.New(config, client.Options{Scheme: scheme.Scheme})
	Expect(err).NotTo(HaveOccurred())
	installCertManager(ctx)
	install(ctx, current)
}, NodeTimeout(5*time.Minute))

var _ = AfterSuite(func(ctx SpecContext) {
	uninstall(ctx, current)
}, NodeTimeout(4*time.Minute))

// installCertManager installs cert-manager, unless it is installed, and waits until its webhook is
// trusted.
func installCertManager(ctx context.Context) {
	GinkgoHelper()
	if _, err := tryKubectl(ctx, "get", "crd", "certificates.cert-manager.io"); err == nil {
		return
	}
	crds, err := filepath.Glob(filepath.Join(os.Getenv(crdsVariable), "*.yaml"))
	Expect(err).NotTo(HaveOccurred())
	Expect(crds).NotTo(BeEmpty(), "%s names no folder with definitions", crdsVariable)
	for _, crd := range crds {
		kubectl(ctx, "apply", "--server-side", "-f", crd)
	}
	kubectl(ctx, "wait", "--for=condition=Established", "--timeout=60s", "crd/certificates.cert-manager.io", "crd/issuers.cert-manager.io")
	kubectl(ctx, "apply", "-f", "testdata/cert-manager.yaml")
	for _, deployment := range []string{"cert-manager", "cert-manager-cainjector", "cert-manager-webhook"} {
		rolledOut(ctx, "cert-manager", "deployment/"+deployment)
	}
}

// install installs Shunt as a user of cert-manager does.
func install(ctx context.Context, folder string) {
	GinkgoHelper()
	apply(ctx, folder)
	kubectl(ctx, "-n", system, "wait", "--for=condition=Ready", "--timeout=60s", "certificate/shunt-webhook")
	Eventually(ctx, bundles).WithTimeout(30*time.Second).WithPolling(200*time.Millisecond).
		Should(HaveEach(Not(BeEmpty())), "no CA was injected")
	answers(ctx)
}

// apply applies manifests and waits until they run. It tries again while cert-manager's own webhook
// is not trusted yet.
func apply(ctx context.Context, folder string) {
	GinkgoHelper()
	Eventually(ctx, func() error {
		_, err := tryKubectl(ctx, "apply", "-k", folder)
		return err
	}).WithTimeout(90 * time.Second).WithPolling(time.Second).Should(Succeed())
	rolledOut(ctx, system, "deployment/shunt-webhook")
}

// uninstall deletes the manifests again, and checks that nothing is left of them.
func uninstall(ctx context.Context, folder string) {
	GinkgoHelper()
	kubectl(ctx, "delete", "--wait", "--timeout=120s", "-k", folder)
	expectNothingLeft(ctx)
}

// answers waits until the API server has got an answer from the webhook: the address of a Service
// whose pods have just become ready refuses connections for about a second.
func answers(ctx context.Context) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		pod := newPod("default", "asks")
		pod.Labels["sidecar.istio.io/inject"] = "true"
		g.Expect(api.Create(ctx, pod, client.DryRunAll)).To(Succeed())
		g.Expect(injected(pod)).To(BeTrue())
	}).WithTimeout(60 * time.Second).WithPolling(200 * time.Millisecond).Should(Succeed())
}
