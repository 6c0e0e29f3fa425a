package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
	_ "k8s.io/client-go/plugin/pkg/client/auth/oidc" // kubeconfig files may name it
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/cluster"
)

// target is the cluster that a command asks, and the namespace in it.
type target struct{ kubeconfig, context, namespace string }

// addFlags adds the flags that kubectl has for it. forNamespace is the help of -n,
// whose values are completed from the cluster.
func (t *target) addFlags(cmd *cobra.Command, forNamespace string) {
	fs := cmd.Flags()
	fs.StringVar(&t.kubeconfig, "kubeconfig", "", "kubeconfig file (default $KUBECONFIG, then ~/.kube/config)")
	fs.StringVar(&t.context, "context", "", "kubeconfig context (default the current one)")
	fs.StringVarP(&t.namespace, "namespace", "n", "", forNamespace)
	err := cmd.RegisterFlagCompletionFunc("namespace", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return t.names(cmd.Context(), ""), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic("the flag was added above: " + err.Error())
	}
}

// completePods completes a command's argument with the names of pods.
func (t *target) completePods(cmd *cobra.Command) {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		_, namespace, err := t.api()
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return t.names(cmd.Context(), namespace), cobra.ShellCompDirectiveNoFileComp
	}
}

// checkNamespaces rejects a wrong --namespace, and one beside --all-namespaces.
func (t *target) checkNamespaces(all bool) error {
	switch {
	case t.namespace == "":
		return nil
	case all:
		return errors.Join(checkNamespace(t.namespace), errors.New("--all-namespaces with --namespace; accepted: one of them"))
	default:
		return checkNamespace(t.namespace)
	}
}

// clusterError wraps an error because of which nothing could be asked.
type clusterError struct{ error }

func (e clusterError) Unwrap() error { return e.error }

// api returns the API server that kubectl would ask, and the namespace that it
// would ask about.
func (t *target) api() (api *rest.Config, namespace string, err error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = t.kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: t.context}
	overrides.Context.Namespace = t.namespace
	loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	if api, err = loaded.ClientConfig(); err != nil {
		return nil, "", err
	}
	api.QPS = -1 // the API server has a brake of its own
	namespace, _, err = loaded.Namespace()
	return api, namespace, err
}

// completionTime is how long somebody who presses the Tab key waits.
const completionTime = 2 * time.Second

// names returns the names of the cluster's namespaces or, in a namespace, of pods;
// none if the cluster cannot be asked.
func (t *target) names(ctx context.Context, namespace string) []string {
	api, _, err := t.api()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	names, err := cluster.Names(ctx, api, namespace)
	if err != nil {
		return nil
	}
	return names
}
