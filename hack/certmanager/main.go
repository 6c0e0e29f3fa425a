// The program certmanager is the three programs of cert-manager that the tests on a real cluster need: its controller, its
// webhook and its cainjector, each over cert-manager's own packages. The Go module of cert-manager holds no main package,
// and those that it is released with are modules of their own that the module proxy does not have.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	logf "github.com/cert-manager/cert-manager/pkg/logs"
)

// programs are the words that the first argument can be.
var programs = map[string]func(context.Context) error{
	"controller": runController,
	"webhook":    runWebhook,
	"cainjector": runCAInjector,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "certmanager:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 || programs[args[0]] == nil {
		return fmt.Errorf("usage: certmanager controller|webhook|cainjector, not %q", args)
	}

	logger := logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, nil))
	klog.SetLogger(logger)
	ctrl.SetLogger(logger)

	return programs[args[0]](logf.NewContext(ctx, logger))
}
