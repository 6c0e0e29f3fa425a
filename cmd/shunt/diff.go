package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/source"
	"github.com/shunt-dev/shunt/initimage/prove"
	"github.com/shunt-dev/shunt/initimage/trace"
)

const diffLong = `Say which connections go another way in one pod than in another.

Two sources are named: by two flags, by one flag and the flags of shunt-init behind --, or by two lists of those flags, each behind --.
The old one comes first. The differences are sets of connections, the largest first, with both ways and one example each. If no
connection differs, every single packet is compared, with any mark and of any state. Pods of manifests are paired by their names.

The exit code is 0 if every packet goes the same way, and 1 if not.`

func newDiff(name string) *cobra.Command {
	var cluster target
	both := newPair(cluster.api)
	var output string
	cmd := &cobra.Command{
		Use:   "diff [-f OLD -f NEW | -- shunt-init's flags -- shunt-init's flags]",
		Short: "Say which connections go another way in one pod than in another",
		Long:  diffLong,
		Example: examples(name, "diff -f old.yaml -f new.yaml", "diff -f deployment.yaml -- -m TPROXY",
			"diff -f deployment.yaml --pod shop/echo-8d7df57bb-zflf4", "diff -- -m REDIRECT -- -m REDIRECT -o 3306"),
		Args: func(cmd *cobra.Command, args []string) error {
			words, flags, given := atDash(cmd, args)
			if given {
				both.setArgs(flags)
			}
			return noArguments(cmd, words)
		},
	}
	cluster.addFlags(cmd, "with --pod: its namespace (default the context's)")
	both.addFlags(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", proofFormats[0], "output format: "+strings.Join(proofFormats, ", "))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := usage(errors.Join(both.check(), cluster.checkNamespaces(false), checkOutput(output, proofFormats...))); err != nil {
			return err
		}
		comparisons, err := both.compare(cmd.Context(), source.Streams{Stdin: cmd.InOrStdin(), Stderr: cmd.ErrOrStderr()})
		if err != nil {
			return err
		}
		if err := printComparisons(cmd.OutOrStdout(), output, comparisons); err != nil {
			return err
		}
		return differ(comparisons)
	}
	return cmd
}

func printComparisons(stdout io.Writer, output string, comparisons []prove.Comparison) error {
	if output == "json" {
		return printJSON(stdout, prove.DiffDocument(comparisons))
	}
	return prove.DiffText(stdout, comparisons)
}

// differ returns an error if a packet goes another way.
func differ(comparisons []prove.Comparison) error {
	var errs []error
	for _, c := range comparisons {
		if n := len(c.Differences); n > 0 {
			errs = append(errs, fmt.Errorf("%s: %d sets of packets go another way", c.New.Name, n))
		}
	}
	return errors.Join(errs...)
}

// pair is the two sources of a comparison, the old one first. A flag that names a
// source is the old one's at its first use, and the new one's at its second. Other
// flags are for both.
type pair struct {
	sources [2]*source.Source
	flags   [2]*pflag.FlagSet
	named   []string // the flags that named a source
}

func newPair(connect source.Connect) *pair {
	p := &pair{}
	for i := range p.sources {
		p.sources[i], p.flags[i] = source.New(), pflag.NewFlagSet("", pflag.ContinueOnError)
		p.sources[i].SetCluster(connect)
		p.sources[i].AddFlags(p.flags[i])
	}
	return p
}

// sharedFlag sets a flag of one source, or of both.
type sharedFlag struct {
	pflag.Value
	pair *pair
	name string
}

// Set takes a value. It is called once for each use of the flag.
func (f *sharedFlag) Set(value string) error {
	if !slices.Contains(f.pair.sources[0].Names(), "--"+f.name) {
		return errors.Join(f.pair.flags[0].Set(f.name, value), f.pair.flags[1].Set(f.name, value))
	}
	i := len(f.pair.named)
	f.pair.named = append(f.pair.named, "--"+f.name+" "+value)
	if i >= len(f.pair.sources) {
		return nil // check says so
	}
	return f.pair.flags[i].Set(f.name, value)
}

func (p *pair) addFlags(fs *pflag.FlagSet) {
	p.flags[0].VisitAll(func(flag *pflag.Flag) {
		shared := *flag
		shared.Value = &sharedFlag{flag.Value, p, flag.Name}
		fs.AddFlag(&shared)
	})
}

// setArgs takes what stands behind --: the flags of the source that no flag names,
// or those of both, with another -- between them.
func (p *pair) setArgs(args []string) {
	for len(p.named) <= len(p.sources) {
		end := slices.Index(args, "--")
		if end < 0 {
			end = len(args)
		}
		if i := len(p.named); i < len(p.sources) {
			p.sources[i].SetArgs(args[:end])
		}
		p.named = append(p.named, "-- "+strings.Join(args[:end], " "))
		if end == len(args) {
			return
		}
		args = args[end+1:]
	}
}

func (p *pair) check() error {
	if len(p.named) != len(p.sources) {
		return fmt.Errorf("%d sources (%s); accepted: two, each of %s, or shunt-init's flags behind --",
			len(p.named), strings.Join(p.named, ", "), strings.Join(p.sources[0].Names(), ", "))
	}
	return source.CheckBoth(p.sources[0], p.sources[1])
}

func (p *pair) compare(ctx context.Context, streams source.Streams) ([]prove.Comparison, error) {
	var pods [2][]trace.Pod
	for i, from := range p.sources {
		var err error
		if pods[i], err = from.Read(ctx, streams); err != nil {
			return nil, err
		}
	}
	olds, news := pods[0], pods[1]
	if len(olds) == 1 && len(news) == 1 {
		return []prove.Comparison{prove.Compare(olds[0], news[0])}, nil
	}
	var comparisons []prove.Comparison
	var errs []error
	for _, old := range olds {
		i := slices.IndexFunc(news, func(fresh trace.Pod) bool { return object(fresh) == object(old) })
		if i < 0 {
			errs = append(errs, fmt.Errorf("%s: in the old source only; accepted: pods of the same names in both", old.Name))
			continue
		}
		comparisons = append(comparisons, prove.Compare(old, news[i]))
	}
	for _, fresh := range news {
		if !slices.ContainsFunc(olds, func(old trace.Pod) bool { return object(fresh) == object(old) }) {
			errs = append(errs, fmt.Errorf("%s: in the new source only; accepted: pods of the same names in both", fresh.Name))
		}
	}
	return comparisons, errors.Join(errs...)
}

// object returns the pod's name without its file and place in that.
func object(pod trace.Pod) string {
	return pod.Name[strings.LastIndex(pod.Name, ": ")+1:]
}
