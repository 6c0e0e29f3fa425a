package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// tryKubectl runs kubectl as a user does, and returns its output. Its error holds what it wrote to
// standard error.
func tryKubectl(ctx context.Context, args ...string) (string, error) {
	var stderr bytes.Buffer
	command := exec.CommandContext(ctx, "kubectl", args...)
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		// Not wrapped: gomega would print everything about the process.
		return string(out), fmt.Errorf("kubectl %s: %s: %s", strings.Join(args, " "), err.Error(), strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// kubectl runs kubectl, and fails the spec if the command fails.
func kubectl(ctx context.Context, args ...string) string {
	GinkgoHelper()
	out, err := tryKubectl(ctx, args...)
	Expect(err).NotTo(HaveOccurred())
	return strings.TrimSpace(out)
}

// rolledOut waits until a Deployment or StatefulSet is rolled out.
func rolledOut(ctx context.Context, namespace, object string) {
	GinkgoHelper()
	kubectl(ctx, "-n", namespace, "rollout", "status", "--timeout=120s", object)
}

// call calls app from a pod's application over HTTP, and returns its answer: the address that it
// was called from.
func call(ctx context.Context, namespace, pod, url string) string {
	GinkgoHelper()
	return kubectl(ctx, "-n", namespace, "exec", pod, "-c", "app", "--", "/app", "get", url)
}
