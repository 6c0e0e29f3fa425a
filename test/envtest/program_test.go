package envtest_test

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("the program shunt-webhook", func() {
	It("becomes ready, and ends with code 0 when it is told to", func(ctx SpecContext) {
		dir := GinkgoT().TempDir()
		program := filepath.Join(dir, "shunt-webhook")
		build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", program, "../../cmd/shunt-webhook")
		output, err := build.CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), "%s", output)
		kubeconfig := filepath.Join(dir, "kubeconfig")
		Expect(os.WriteFile(kubeconfig, accountFile, 0o600)).To(Succeed())
		probes, serves := freeAddress(), freeAddress()
		_, port, err := net.SplitHostPort(serves)
		Expect(err).NotTo(HaveOccurred())

		var log strings.Builder
		command := exec.CommandContext(ctx, program, "--kubeconfig="+kubeconfig, "--webhook-port="+port, "--metrics-bind-address=0",
			"--health-probe-bind-address="+probes, "--cert-dir="+environment.WebhookInstallOptions.LocalServingCertDir)
		command.Stderr = &log
		command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		Expect(command.Start()).To(Succeed())
		ended := make(chan error, 1)
		go func() { ended <- command.Wait() }()
		Eventually(ctx, get).WithArguments("http://" + probes + "/readyz").WithTimeout(20 * time.Second).
			WithPolling(100 * time.Millisecond).Should(Equal(http.StatusOK))
		Expect(command.Process.Signal(syscall.SIGTERM)).To(Succeed())
		Eventually(ctx, ended).WithTimeout(25*time.Second).Should(Receive(BeNil()), "exit code 0")
		for line := range strings.Lines(log.String()) {
			Expect(line).To(HavePrefix("{"), "a line of the log is no JSON")
		}
	})
})
