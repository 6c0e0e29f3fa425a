// Package envtest_test runs the webhook behind a real kube-apiserver and etcd:
// the manifests that ship, the manager that ships, with the rights that ship.
//
// KUBEBUILDER_ASSETS names the folder with both programs; hack/envtest.sh
// finds or builds them.
package envtest_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/webhook"
)

const assetsVariable = "KUBEBUILDER_ASSETS"

func TestWebhook(t *testing.T) {
	requireAssets(t)
	RegisterFailHandler(Fail)
	RunSpecs(t, "Webhook")
}

// requireAssets skips a test where there is no API server; in CI, where CI is
// true, it fails it.
func requireAssets(t *testing.T) {
	t.Helper()
	if os.Getenv(assetsVariable) != "" {
		return
	}
	sentence := assetsVariable + " is not set: this suite needs kube-apiserver and etcd; hack/envtest.sh prints where they are"
	if os.Getenv("CI") == "true" {
		t.Fatal(sentence)
	}
	t.Skip(sentence)
}

// What every spec uses.
var (
	environment *envtest.Environment
	admin       *rest.Config
	api         client.Client // the administrator's
	account     *rest.Config  // of the webhook's service account, with the rights in config/rbac
	accountFile []byte        // the same as a kubeconfig file
	files       string        // the folder of what is built and written, for as long as the suite runs
	running     *instance
)

var _ = BeforeSuite(func(ctx SpecContext) {
	ctrl.SetLogger(logr.FromSlogHandler(ginkgoLog()))
	files = temporaryFolder()
	GinkgoT().Setenv("TMPDIR", files) // of what envtest writes, too
	environment = &envtest.Environment{
		WebhookInstallOptions:    envtest.WebhookInstallOptions{Paths: []string{"../../config/webhook/manifests.yaml"}},
		ControlPlaneStartTimeout: controlPlanePatience, ControlPlaneStopTimeout: controlPlanePatience,
	}
	endsWithThisProcess(environment, files)
	var err error
	admin, err = environment.Start()
	// Registered at once: an API server that came up half is to go, too.
	DeferCleanup(func() { Expect(environment.Stop()).To(Succeed()) })
	Expect(err).NotTo(HaveOccurred())

	admin.QPS = -1 // the client's own brake would make up most of the suite's time
	api, err = client.New(admin, client.Options{Scheme: scheme.Scheme})
	Expect(err).NotTo(HaveOccurred())
	createFrom(ctx, "../../config/rbac", isKind("ClusterRole", "ClusterRoleBinding"))
	user, err := environment.AddUser(envtest.User{
		Name:   "system:serviceaccount:shunt-system:shunt-webhook",
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:shunt-system"},
	}, admin)
	Expect(err).NotTo(HaveOccurred())
	account = user.Config()
	accountFile, err = user.KubeConfig()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() {
		if running != nil {
			running.stop()
		}
	})
	start(ctx)
}, NodeTimeout(2*controlPlanePatience))

// controlPlanePatience is for a control plane that does not come up, not for a
// busy machine: envtest would give it 20 s.
const controlPlanePatience = 2 * time.Minute

// instance is a running webhook.
type instance struct {
	registry *prometheus.Registry
	probes   string // URL of the probes' server
	metrics  string // URL of the metrics' server
	cancel   context.CancelFunc
	done     chan error
	// countPods is how often it counts the pods; 0 for never.
	countPods time.Duration
}

// start has the manager run that cmd/shunt-webhook runs, and waits until it is
// ready.
func start(ctx context.Context) {
	GinkgoHelper()
	running = newInstance() // to be stopped also when it does not become ready
	running.run(ctx, config.Default(), environment.WebhookInstallOptions.LocalServingPort)
}

func newInstance() *instance {
	return &instance{registry: prometheus.NewRegistry(), cancel: func() {}, done: make(chan error, 1)}
}

// run is for once.
func (i *instance) run(ctx context.Context, cfg config.Config, port int) {
	GinkgoHelper()
	install := environment.WebhookInstallOptions
	probes, metrics := freeAddress(), freeAddress()
	i.probes, i.metrics = "http://"+probes, "http://"+metrics
	manager, err := webhook.NewManager(account, cfg, webhook.Options{
		Host: install.LocalServingHost, Port: port, CertDir: install.LocalServingCertDir,
		MetricsAddress: metrics, ProbeAddress: probes, Registry: i.registry, CountPods: i.countPods, Log: logr.FromSlogHandler(ginkgoLog()),
	})
	Expect(err).NotTo(HaveOccurred())
	// Not the node's context, which ends with the node.
	lifetime, cancel := context.WithCancel(context.WithoutCancel(ctx))
	i.cancel = cancel
	go func() { i.done <- manager.Start(lifetime) }()
	Eventually(ctx, get).WithArguments(i.probes+"/readyz").WithTimeout(20*time.Second).WithPolling(200*time.Millisecond).
		Should(Equal(http.StatusOK), "the webhook does not become ready")
}

func (i *instance) stop() {
	GinkgoHelper()
	i.cancel()
	Eventually(i.done).WithTimeout(30*time.Second).Should(Receive(BeNil()), "the manager did not end as it should")
}

// count is the value of shunt_webhook_requests_total.
func (i *instance) count(result string, reason inject.Reason) float64 {
	GinkgoHelper()
	families, err := i.registry.Gather()
	Expect(err).NotTo(HaveOccurred())
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			labels := map[string]string{}
			for _, label := range metric.GetLabel() {
				labels[label.GetName()] = label.GetValue()
			}
			if labels["result"] == result && labels["reason"] == string(reason) {
				return metric.GetCounter().GetValue()
			}
		}
	}
	Fail(fmt.Sprintf("no count of result %q and reason %q", result, reason))
	return 0
}

// get returns the status of a URL's answer, or 0.
func get(ctx context.Context, url string) int {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	return response.StatusCode
}

func freeAddress() string {
	GinkgoHelper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	defer listener.Close()
	return listener.Addr().String()
}

var _ = Describe("the server", func() {
	It("takes TLS 1.3 only, and says that it lives, is ready, and what it counted", func(ctx SpecContext) {
		install := environment.WebhookInstallOptions
		address := net.JoinHostPort(install.LocalServingHost, fmt.Sprint(install.LocalServingPort))
		for version, accepted := range map[uint16]bool{tls.VersionTLS12: false, tls.VersionTLS13: true} {
			dialer := tls.Dialer{Config: &tls.Config{
				InsecureSkipVerify: true, MinVersion: version, MaxVersion: version,
			}}
			connection, err := dialer.DialContext(ctx, "tcp", address)
			Expect(err == nil).To(Equal(accepted), "%s: %v", tls.VersionName(version), err)
			if err == nil {
				Expect(connection.Close()).To(Succeed())
			}
		}
		for _, url := range []string{running.probes + "/healthz", running.probes + "/readyz", running.metrics + "/metrics"} {
			Expect(get(ctx, url)).To(Equal(http.StatusOK), url)
		}
	})

	It("may read namespaces, write Events, and nothing else", func(ctx SpecContext) {
		own, err := client.New(account, client.Options{Scheme: scheme.Scheme})
		Expect(err).NotTo(HaveOccurred())
		Expect(own.List(ctx, list("NamespaceList"))).To(Succeed())
		for _, kind := range []string{"PodList", "SecretList", "ConfigMapList", "EventList"} {
			Expect(own.List(ctx, list(kind))).To(MatchError(ContainSubstring("forbidden")), kind)
		}
		Expect(own.Create(ctx, namespace(nil))).To(MatchError(ContainSubstring("forbidden")))
	})
})
