// Command shunt-webhook puts the proxy into pods when they are created: a
// mutating admission webhook for the API server of the cluster that it runs in.
//
// Exit codes: 0 stopped by a signal, or asked for --help or --version; 1 could
// not start or go on; 2 bad arguments, nothing was started.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/shunt-dev/shunt/webhook"
)

// version is set by the linker.
var version = "dev"

// Exit codes.
const (
	exitDone      = 0
	exitFailed    = 1
	exitArguments = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintln(os.Stderr, "shunt-webhook: "+strings.TrimSuffix(line, "\n"))
		}
	}
	os.Exit(exitCode(err))
}

// errArguments is wrapped by every error that the caller's arguments caused.
var errArguments = errors.New("bad arguments")

func exitCode(err error) int {
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errArguments):
		return exitArguments
	default:
		return exitFailed
	}
}

// run serves the webhook until ctx ends. Logs go to stderr, one line each.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		_, err := fmt.Fprint(stdout, "Usage: shunt-webhook [flags]\n\n", usage())
		return err
	case err != nil:
		return err
	case s.version:
		_, err := fmt.Fprintln(stdout, "shunt-webhook", version)
		return err
	}
	log := logr.FromSlogHandler(s.logHandler(stderr))
	ctrllog.SetLogger(log)
	api, err := apiServer(s.kubeconfig)
	if err != nil {
		return fmt.Errorf("find the API server: %w", err)
	}
	s.options.Log, s.options.Self = log, self(os.Getenv)
	if s.options.SelfSigned, err = s.selfSigned.options(os.Getenv("POD_NAMESPACE")); err != nil {
		return badArguments(err)
	}
	mgr, err := webhook.NewManager(api, s.config, s.options)
	if err != nil {
		return err
	}
	log.Info("starting", "version", version, "revision", s.config.Revision, "initImage", s.config.InitImage,
		"proxyImage", s.config.ProxyImage, "defaultPolicy", s.config.DefaultPolicy)
	ctx, stop := lingering(ctx, s.shutdownDelay)
	defer stop()
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("serve the webhook: %w", err)
	}
	return nil
}

// lingering ends a while after ctx does. For a moment a pod that is told to end
// is still sent requests, and one that is refused is a pod that is not made.
func lingering(ctx context.Context, while time.Duration) (context.Context, context.CancelFunc) {
	longer, end := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() { time.AfterFunc(while, end) })
	return longer, end
}

// apiServer is the one that the file names, or the one of the pod that this
// process runs in.
func apiServer(kubeconfig string) (api *rest.Config, err error) {
	if kubeconfig == "" {
		api, err = rest.InClusterConfig()
	} else {
		api, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, err
	}
	// Without the client's own brake, 5 requests a second, at which a rollout
	// would wait for its namespaces to be looked up. The API server has one.
	api.QPS = -1
	return api, nil
}

// self is the pod that this process runs in, by the variables that
// config/manager sets; nil where they are not all there.
func self(variable func(string) string) *corev1.ObjectReference {
	name, namespace, uid := variable("POD_NAME"), variable("POD_NAMESPACE"), variable("POD_UID")
	if name == "" || namespace == "" || uid == "" {
		return nil
	}
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: namespace, Name: name, UID: types.UID(uid)}
}
