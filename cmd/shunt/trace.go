package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/picture"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/source"
	"github.com/shunt-dev/shunt/initimage/dump"
	"github.com/shunt-dev/shunt/initimage/trace"
)

const traceLong = `Show which way a connection goes through a pod, and why.

It names every hook, table and chain in the order in which the kernel runs them, and the rule that decides. It goes on where the
proxy opens a connection of its own, and on the way back, until the bytes reach the app or leave the pod.

Without --to it lists the paths that matter: in, out, loopback, the pod's own address, DNS, probes, and the exceptions that the rules
make, for IPv4 and IPv6.

The rules are those of shunt-init, whose flags stand behind --, unless a flag or a POD names another source. For a running POD an
ephemeral container reads what the pod really has; the command says first what it adds. -f and --dump ask nobody. This line,
run in a pod or on its node in the pod's namespace, prints what --dump reads:

  ` + dump.Script + `
`

func newTrace(name string) *cobra.Command {
	var asked trace.Question
	var output string
	var live bool
	cmd := &cobra.Command{
		Use:   "trace [--from app|proxy|ADDR --to ADDR:PORT] [POD | -f FILE | --dump FILE | --netns PATH | -- shunt-init's flags]",
		Short: "Show which way a connection goes, and why", Long: traceLong,
		Example: examples(name,
			"trace", "trace -f deployment.yaml --from app --to 10.0.0.9:443", "trace echo-8d7df57bb-zflf4 -n shop", "trace --dump dump.txt",
			"trace --from 10.0.0.9 --to 10.0.0.1:8080 -- -m TPROXY", "trace --from app --to [fd00::9]:443 -o mermaid"),
	}
	rules := addSource(cmd)
	addQuestion(cmd.Flags(), &asked)
	cmd.Flags().StringVarP(&output, "output", "o", traceFormats[0], "output format: "+strings.Join(traceFormats, ", "))
	cmd.Flags().BoolVar(&live, "live", false, "with a running pod, --from app and --to: make this tcp connection, sending nothing, "+
		"and say which rules count it and which line of the proxy's log it is")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		wrong := errors.Join(rules.check(), checkQuestion(asked), checkOutput(output, traceFormats...))
		if err := usage(wrong); err != nil {
			return err
		}
		streams := source.Streams{Stdin: cmd.InOrStdin(), Stderr: cmd.ErrOrStderr()}
		if live {
			var err error
			if streams.Live, err = liveTarget(asked, rules.Running()); err != nil {
				return usage(err)
			}
		}
		pods, err := rules.Read(cmd.Context(), streams)
		if err != nil {
			return err
		}
		answers := make([]trace.Answer, len(pods))
		for i, pod := range pods {
			paths, err := tracePaths(pod, asked)
			if err != nil {
				return err
			}
			answers[i] = trace.Answer{Pod: pod, Paths: paths}
		}
		return printTrace(cmd.OutOrStdout(), output, answers)
	}
	return cmd
}

// traceFormats are the values of --output, the default first.
var traceFormats = []string{"text", "json", "mermaid", "dot", "html"}

func printTrace(stdout io.Writer, output string, answers []trace.Answer) error {
	switch output {
	case "json":
		return printJSON(stdout, trace.Document(answers))
	case "mermaid":
		return trace.Mermaid(stdout, answers)
	case "dot":
		return trace.Dot(stdout, answers)
	case "html":
		return picture.Page(stdout, answers, version)
	}
	return trace.Text(stdout, answers)
}

func addQuestion(fs *pflag.FlagSet, q *trace.Question) {
	fs.StringVar(&q.From, "from", "", "who opens the connection: app, proxy, or an address of another host "+
		"(default app; for a connection to the pod's own address, another host)")
	fs.StringVar(&q.To, "to", "", "where to: ADDRESS:PORT")
	fs.BoolVar(&q.UDP, "udp", false, "with --to: udp rather than tcp")
	fs.StringVar(&q.UID, "uid", "", "with --from app or proxy: user `id` of the process (default 1000, or the proxy's)")
	fs.StringVar(&q.GID, "gid", "", "with --from app or proxy: group `id` of the process (default 1000, or the proxy's)")
	fs.StringVar(&q.Mark, "mark", "", "with --from app or proxy: packet `mark` of the socket")
}

// liveTarget returns where a real connection goes to that is made in a running pod.
func liveTarget(q trace.Question, running bool) (netip.AddrPort, error) {
	to, _ := netip.ParseAddrPort(q.To) // none is not valid, and another is rejected before
	switch {
	case !running:
		return to, errors.New("--live without a running pod; accepted: with POD, --pod, --netns or --pid")
	case !to.IsValid():
		return to, errors.New("--to: Required value with --live; accepted: ADDRESS:PORT")
	case q.UDP || q.UID+q.GID+q.Mark != "" || q.From != "" && q.From != string(trace.App):
		return to, errors.New("--live with --udp, --uid, --gid, --mark, or --from other than app; accepted: a tcp connection of the app")
	}
	return to, nil
}

// checkQuestion checks what the user asked, if anything.
func checkQuestion(q trace.Question) error {
	if q == (trace.Question{}) {
		return nil
	}
	errs := q.Check()
	for i := range errs {
		errs[i] = fmt.Errorf("--%w", errs[i])
	}
	return errors.Join(errs...)
}

// tracePaths returns the journey that is asked for, or the paths that matter.
func tracePaths(pod trace.Pod, q trace.Question) ([]trace.Path, error) {
	if q == (trace.Question{}) {
		return trace.Paths(pod), nil
	}
	connection, err := q.Connection(pod)
	if err != nil {
		return nil, usage(fmt.Errorf("--%w", err))
	}
	return []trace.Path{{Family: connection.Packet.Family, Journey: trace.Walk(pod, connection)}}, nil
}
