package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/source"
)

// ruleSource is where a command takes rules from: a pod of a cluster, or anything
// else that package source reads.
type ruleSource struct {
	*source.Source
	cluster target
}

// addSource adds what names a source to a command: its flags, the argument POD, and
// shunt-init's flags behind --.
func addSource(cmd *cobra.Command) *ruleSource {
	rules := &ruleSource{Source: source.New()}
	rules.SetCluster(rules.cluster.api)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		words, flags, given := atDash(cmd, args)
		if given {
			rules.SetArgs(flags)
		}
		rules.SetPod(words)
		return nil
	}
	rules.cluster.addFlags(cmd, "with a POD: its namespace (default the context's)")
	rules.cluster.completePods(cmd)
	rules.AddFlags(cmd.Flags())
	return rules
}

// check returns what is wrong with the flags.
func (r *ruleSource) check() error {
	return errors.Join(r.Check(), r.cluster.checkNamespaces(false))
}

// atDash parts the arguments of a command at --, if that is given.
func atDash(cmd *cobra.Command, args []string) (before, behind []string, given bool) {
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		return args[:dash], args[dash:], true
	}
	return args, nil, false
}
