package envtest_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	eventsv1 "k8s.io/api/events/v1"

	"github.com/shunt-dev/shunt/inject/config"
)

// program is a running shunt-webhook, as its image runs it.
type program struct {
	config                 string // file
	probes, metrics, debug string // URLs
	log                    *strings.Builder
	command                *exec.Cmd
	ended                  chan error
}

// buildProgram builds shunt-webhook.
func buildProgram(ctx context.Context) string {
	GinkgoHelper()
	binary := filepath.Join(GinkgoT().TempDir(), "shunt-webhook")
	output, err := childCommand(ctx, "go", "build", "-buildvcs=false", "-o", binary, "../../cmd/shunt-webhook").CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "%s", output)
	return binary
}

// startProgram builds shunt-webhook, runs it and waits until it is ready.
func startProgram(ctx context.Context, config string) program {
	GinkgoHelper()
	p := runProgram(ctx, buildProgram(ctx), accountFile, config, freeAddress(),
		"--cert-dir="+environment.WebhookInstallOptions.LocalServingCertDir)
	p.becomesReady(ctx)
	return p
}

// runProgram runs shunt-webhook with the rights of a kubeconfig file, at an
// address.
func runProgram(ctx context.Context, binary string, rights []byte, config, serves string, args ...string) program {
	GinkgoHelper()
	dir := GinkgoT().TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	Expect(os.WriteFile(kubeconfig, rights, 0o600)).To(Succeed())
	probes, metrics, debug := freeAddress(), freeAddress(), freeAddress()
	_, port, err := net.SplitHostPort(serves)
	Expect(err).NotTo(HaveOccurred())
	p := program{
		config: filepath.Join(dir, "config.yaml"), probes: "http://" + probes, metrics: "http://" + metrics, debug: "http://" + debug,
		log: &strings.Builder{}, ended: make(chan error, 1),
	}
	p.write(config)
	p.command = childCommand(ctx, binary, append([]string{
		"--kubeconfig=" + kubeconfig, "--webhook-port=" + port, "--config=" + p.config,
		"--metrics-bind-address=" + metrics, "--health-probe-bind-address=" + probes, "--debug-bind-address=" + debug,
	}, args...)...)
	p.command.Env = append(os.Environ(), "POD_NAME=webhook-1", "POD_NAMESPACE=shunt-system", "POD_UID=uid-of-webhook-1")
	p.command.Stderr = p.log
	Expect(p.command.Start()).To(Succeed())
	go func() { p.ended <- p.command.Wait() }()
	return p
}

func (p program) becomesReady(ctx context.Context) {
	GinkgoHelper()
	Eventually(ctx, get).WithArguments(p.probes+"/readyz").WithTimeout(60*time.Second).
		WithPolling(100*time.Millisecond).Should(Equal(http.StatusOK), func() string { return "not ready: " + p.log.String() })
}

// write has the file say other settings.
func (p program) write(settings string) {
	GinkgoHelper()
	text := "apiVersion: shunt.dev/v1alpha1\nkind: InjectorConfiguration\ninitImage: mine\n" + settings
	Expect(os.WriteFile(p.config, []byte(text), 0o600)).To(Succeed())
}

// exposes waits until the metrics have these lines.
func (p program) exposes(ctx context.Context, lines ...string) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.metrics+"/metrics", nil)
		g.Expect(err).NotTo(HaveOccurred())
		response, err := http.DefaultClient.Do(request)
		g.Expect(err).NotTo(HaveOccurred())
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(strings.Split(string(text), "\n")).To(ContainElements(lines))
	}).WithTimeout(30 * time.Second).WithPolling(100 * time.Millisecond).Should(Succeed())
}

// inForce is what the program says that it injects with.
func (p program) inForce(ctx context.Context) config.InForce {
	GinkgoHelper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.debug+config.InForcePath, nil)
	Expect(err).NotTo(HaveOccurred())
	response, err := http.DefaultClient.Do(request)
	Expect(err).NotTo(HaveOccurred())
	defer response.Body.Close()
	var got config.InForce
	Expect(json.NewDecoder(response.Body).Decode(&got)).To(Succeed())
	return got
}

var _ = Describe("the program shunt-webhook", func() {
	It("goes by its file as it changes, stays ready when that is bad, and ends with code 0 when it is told to", func(ctx SpecContext) {
		shuntNamespace(ctx)
		p := startProgram(ctx, "concurrency: 3\n")
		p.exposes(ctx, `shunt_webhook_config_reloads_total{result="ok"} 1`, "shunt_webhook_config_last_reload_successful 1")
		p.exposes(ctx, "# TYPE process_resident_memory_bytes gauge", "# TYPE go_goroutines gauge")
		Expect(get(ctx, p.debug+"/debug/pprof/cmdline")).To(Equal(http.StatusOK))

		Expect(p.inForce(ctx)).To(And(HaveField("Revision", "default"), HaveField("File", p.config), HaveField("Error", ""),
			HaveField("NativeSidecars", true), HaveField("Configuration", ContainSubstring(`"concurrency": 3`))))

		p.write("concurrency: none\n")
		p.exposes(ctx, `shunt_webhook_config_reloads_total{result="failed"} 1`, "shunt_webhook_config_last_reload_successful 0")
		Expect(get(ctx, p.probes+"/readyz")).To(Equal(http.StatusOK))
		var event eventsv1.Event
		Eventually(ctx, func(g Gomega) {
			all := eventsIn(ctx, "shunt-system")
			i := slices.IndexFunc(all, func(e eventsv1.Event) bool { return e.Regarding.Name == "webhook-1" })
			g.Expect(i).To(BeNumerically(">=", 0), "there is no Event of the pod")
			event = all[i]
		}).WithTimeout(20 * time.Second).WithPolling(50 * time.Millisecond).Should(Succeed())
		Expect(event.Regarding.Kind + " " + string(event.Regarding.UID) + " " + event.Reason).
			To(Equal("Pod uid-of-webhook-1 BadConfiguration"))
		Expect(event.Note).To(ContainSubstring("concurrency"))

		Expect(p.inForce(ctx)).To(And(HaveField("Error", ContainSubstring("concurrency")),
			HaveField("Configuration", ContainSubstring(`"concurrency": 3`))))

		p.write("concurrency: 4\n")
		p.exposes(ctx, `shunt_webhook_config_reloads_total{result="ok"} 2`, "shunt_webhook_config_last_reload_successful 1")

		ranges := filepath.Join(filepath.Dir(p.config), "cdn.txt")
		Expect(os.WriteFile(ranges, []byte("192.0.2.0/25\n"), 0o600)).To(Succeed())
		p.write("excludeOutboundIPRanges: file:cdn.txt\n")
		p.exposes(ctx, `shunt_webhook_config_reloads_total{result="ok"} 3`)
		Expect(p.inForce(ctx)).To(HaveField("Configuration", ContainSubstring(`"excludeOutboundIPRanges": "192.0.2.0/25"`)))
		Expect(os.WriteFile(ranges+".new", []byte("192.0.2.0/25\n192.0.2.128/25\n"), 0o600)).To(Succeed())
		Expect(os.Rename(ranges+".new", ranges)).To(Succeed())
		p.exposes(ctx, `shunt_webhook_config_reloads_total{result="ok"} 4`)
		Expect(p.inForce(ctx)).To(HaveField("Configuration", ContainSubstring(`"excludeOutboundIPRanges": "192.0.2.0/24"`)))

		Expect(p.command.Process.Signal(syscall.SIGTERM)).To(Succeed())
		Consistently(ctx, get).WithArguments(p.probes+"/readyz").WithTimeout(time.Second).
			WithPolling(100*time.Millisecond).Should(Equal(http.StatusOK), "it serves on for a while")
		Eventually(ctx, p.ended).WithTimeout(25*time.Second).Should(Receive(BeNil()), "exit code 0")
		for line := range strings.Lines(p.log.String()) {
			Expect(line).To(HavePrefix("{"), "a line of the log is no JSON")
		}
	})
})
