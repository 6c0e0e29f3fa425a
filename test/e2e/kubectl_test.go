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

// try runs kubectl, as a user does, and returns what it printed. What it says on standard error is the error's text.
func try(ctx context.Context, args ...string) (string, error) {
	var stderr bytes.Buffer
	command := exec.CommandContext(ctx, "kubectl", args...)
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		// Not wrapped: gomega would print all that is known of the process.
		return string(out), fmt.Errorf("kubectl %s: %s: %s", strings.Join(args, " "), err.Error(), strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// kubectl fails the spec where the command does.
func kubectl(ctx context.Context, args ...string) string {
	GinkgoHelper()
	out, err := try(ctx, args...)
	Expect(err).NotTo(HaveOccurred())
	return strings.TrimSpace(out)
}

// rolledOut waits until a Deployment or StatefulSet runs as it says.
func rolledOut(ctx context.Context, namespace, object string) {
	GinkgoHelper()
	kubectl(ctx, "-n", namespace, "rollout", "status", "--timeout=120s", object)
}

// call is what app answers that a pod's application asks over HTTP: the address that it was called from.
func call(ctx context.Context, namespace, pod, url string) string {
	GinkgoHelper()
	return kubectl(ctx, "-n", namespace, "exec", pod, "-c", "app", "--", "/app", "get", url)
}
