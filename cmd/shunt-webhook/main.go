// Command shunt-webhook takes the API server's requests to create pods in, and puts
// the proxy into these pods: it is a mutating admission webhook for the cluster
// that it runs in.
//
// Exit codes: 0 stopped by a signal, or printed --help or --version; 1 could not
// start or continue; 2 bad arguments, nothing was started.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/shunt-dev/shunt/cmd/internal/daemon"
	"github.com/shunt-dev/shunt/webhook"
)

// version is set by the linker.
var version = "dev"

func main() { daemon.Main("shunt-webhook", run) }

// run serves the webhook until ctx ends. Logs go to stderr, one line each.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	settings, err := parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		_, err := fmt.Fprint(stdout, "Usage: shunt-webhook [flags]\n\n", usage())
		return err
	case err != nil:
		return err
	case settings.version:
		_, err := fmt.Fprintln(stdout, "shunt-webhook", version)
		return err
	}
	log := logr.FromSlogHandler(settings.log.Handler(stderr))
	ctrllog.SetLogger(log)
	api, err := apiServer(settings.kubeconfig)
	if err != nil {
		return fmt.Errorf("find the API server: %w", err)
	}
	settings.options.Log, settings.options.Self, settings.options.Version = log, self(os.Getenv), version
	if settings.options.SelfSigned, err = settings.selfSigned.options(os.Getenv("POD_NAMESPACE")); err != nil {
		return daemon.BadArguments(err)
	}
	mgr, err := webhook.NewManager(api, settings.config, settings.options)
	if err != nil {
		return err
	}
	log.Info("starting", "version", version, "revision", settings.config.Revision, "initImage", settings.config.InitImage,
		"proxyImage", settings.config.ProxyImage, "defaultPolicy", settings.config.DefaultPolicy)
	ctx, stop := delayed(ctx, settings.shutdownDelay)
	defer stop()
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("serve the webhook: %w", err)
	}
	return nil
}

// delayed returns a context that ends a while after ctx does. A pod that is told to
// stop still gets requests for a moment, and if it refused them, pods would not be
// created.
func delayed(ctx context.Context, while time.Duration) (context.Context, context.CancelFunc) {
	longer, end := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() { time.AfterFunc(while, end) })
	return longer, end
}

// apiServer returns the API server of the file, or that of this process's pod.
func apiServer(kubeconfig string) (api *rest.Config, err error) {
	if kubeconfig == "" {
		api, err = rest.InClusterConfig()
	} else {
		api, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, err
	}
	// The client's own rate limit of 5 requests a second would delay a rollout,
	// whose namespaces are looked up. The API server has its own limits.
	api.QPS = -1
	return api, nil
}

// self returns the pod that this process runs in, from the variables that
// config/manager sets; nil unless all are set.
func self(variable func(string) string) *corev1.ObjectReference {
	name, namespace, uid := variable("POD_NAME"), variable("POD_NAMESPACE"), variable("POD_UID")
	if name == "" || namespace == "" || uid == "" {
		return nil
	}
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: namespace, Name: name, UID: types.UID(uid)}
}
