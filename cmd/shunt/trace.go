package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/source"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

const traceLong = `Show which way a connection goes through a pod, and why.

It names every hook, table and chain in the order in which the kernel runs them, and the rule that decides. It goes on where the
proxy opens a connection of its own, and on the way back, until the bytes reach the app or leave the pod. Nothing is changed, and
no Linux kernel is needed.

Without --to it lists the paths that matter: in, out, loopback, the pod's own address, DNS, probes, and the exceptions that the rules
make, for IPv4 and IPv6.

The rules are those of shunt-init, whose flags stand behind --, unless a flag names another source.`

// question is the connection that the user asks for.
type question struct {
	from, to       string
	udp            bool
	uid, gid, mark *uint32
}

func newTrace(name string) *cobra.Command {
	rules := source.New()
	var asked question
	var output string
	cmd := &cobra.Command{
		Use:   "trace [--from app|proxy|ADDR --to ADDR:PORT] [-f FILE | -- shunt-init's flags]",
		Short: "Show which way a connection goes, and why", Long: traceLong,
		Example: examples(name,
			"trace", "trace -f deployment.yaml --from app --to 10.0.0.9:443",
			"trace --from 10.0.0.9 --to 10.0.0.1:8080 -- -m TPROXY", "trace --from app --to [fd00::9]:443 -o mermaid"),
		Args: func(cmd *cobra.Command, args []string) error { return noArguments(cmd, beforeDash(cmd, args)) },
	}
	rules.AddFlags(cmd.Flags())
	asked.addFlags(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", traceFormats[0], "output format: "+strings.Join(traceFormats, ", "))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if dash := cmd.ArgsLenAtDash(); dash >= 0 {
			rules.SetArgs(args[dash:])
		}
		packet, err := asked.packet()
		if err := usage(errors.Join(rules.Check(), err, checkTraceOutput(output))); err != nil {
			return err
		}
		pods, err := rules.Read(cmd.Context(), source.Streams{Stdin: cmd.InOrStdin(), Stderr: cmd.ErrOrStderr()})
		if err != nil {
			return err
		}
		answers := make([]trace.Answer, len(pods))
		for i, pod := range pods {
			answers[i].Pod = pod
			if answers[i].Paths, err = asked.paths(pod, packet); err != nil {
				return usage(err)
			}
		}
		return printTrace(cmd.OutOrStdout(), output, answers)
	}
	return cmd
}

// beforeDash returns the arguments that do not stand behind --.
func beforeDash(cmd *cobra.Command, args []string) []string {
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		return args[:dash]
	}
	return args
}

// traceFormats are the values of --output, the default first.
var traceFormats = []string{"text", "json", "mermaid", "dot"}

func checkTraceOutput(output string) error {
	for _, known := range traceFormats {
		if output == known {
			return nil
		}
	}
	return fmt.Errorf("--output: invalid value %q; accepted: %s", output, strings.Join(traceFormats, ", "))
}

func printTrace(stdout io.Writer, output string, answers []trace.Answer) error {
	switch output {
	case "json":
		return printJSON(stdout, trace.Document(answers))
	case "mermaid":
		return trace.Mermaid(stdout, answers)
	case "dot":
		return trace.Dot(stdout, answers)
	}
	return trace.Text(stdout, answers)
}

func (q *question) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&q.from, "from", "", "who opens the connection: app, proxy, or an address of another host "+
		"(default app; for a connection to the pod's own address, another host)")
	fs.StringVar(&q.to, "to", "", "where to: ADDRESS:PORT")
	fs.BoolVar(&q.udp, "udp", false, "with --to: udp rather than tcp")
	number := func(into **uint32, name, usage string) {
		fs.Func(name, usage, func(text string) error {
			n, err := strconv.ParseUint(text, 0, 32)
			if err != nil {
				return errors.New("accepted: a number, 0 to 4294967295")
			}
			value := uint32(n)
			*into = &value
			return nil
		})
	}
	number(&q.uid, "uid", "with --from app or proxy: user `id` of the process (default 1000, or the proxy's)")
	number(&q.gid, "gid", "with --from app or proxy: group `id` of the process (default 1000, or the proxy's)")
	number(&q.mark, "mark", "with --from app or proxy: packet `mark` of the socket")
}

// packet returns the packet that the question is about, as far as it is known
// without a pod; nil if there is no question.
func (q *question) packet() (*ruleset.Packet, error) {
	owned := q.uid != nil || q.gid != nil || q.mark != nil
	if q.to == "" {
		if q.from != "" || q.udp || owned {
			return nil, errors.New("--to: Required value with --from, --udp, --uid, --gid or --mark; accepted: ADDRESS:PORT")
		}
		return nil, nil
	}
	to, err := netip.ParseAddrPort(q.to)
	if err != nil || to.Port() == 0 {
		return nil, fmt.Errorf("--to: invalid value %q; accepted: ADDRESS:PORT, [ADDRESS]:PORT", q.to)
	}
	packet := &ruleset.Packet{
		Protocol: "tcp", Family: ruleset.IPv4, Dst: to.Addr().Unmap().WithZone(""), DstPort: to.Port(),
		UID: 1000, GID: 1000, State: ruleset.New,
	}
	if !packet.Dst.Is4() {
		packet.Family = ruleset.IPv6
	}
	if q.udp {
		packet.Protocol = "udp"
	}
	if q.from != "" && q.from != string(trace.App) && q.from != string(trace.TheProxy) {
		err = q.setSource(packet)
	}
	return packet, err
}

// setSource sets the source of a packet of another host.
func (q *question) setSource(packet *ruleset.Packet) error {
	from, err := netip.ParseAddrPort(q.from)
	if err != nil {
		addr, err := netip.ParseAddr(q.from)
		if err != nil {
			return fmt.Errorf("--from: invalid value %q; accepted: app, proxy, ADDRESS, ADDRESS:PORT", q.from)
		}
		from = netip.AddrPortFrom(addr, 0)
	}
	packet.Src, packet.SrcPort = from.Addr().Unmap().WithZone(""), from.Port()
	if !packet.Family.Of(packet.Src) {
		return fmt.Errorf("--from: invalid value %q with --to %s; accepted: addresses of one family", q.from, q.to)
	}
	return nil
}

// paths returns the journey that is asked for, or the paths that matter.
func (q *question) paths(pod trace.Pod, packet *ruleset.Packet) ([]trace.Path, error) {
	if packet == nil {
		return trace.Paths(pod), nil
	}
	connection := trace.Asked(pod, trace.Actor(q.from), *packet)
	for _, given := range []struct {
		name        string
		value, into *uint32
	}{
		{"--uid", q.uid, &connection.Packet.UID}, {"--gid", q.gid, &connection.Packet.GID}, {"--mark", q.mark, &connection.Packet.Mark},
	} {
		switch {
		case given.value == nil:
		case connection.From == trace.Outside:
			return nil, fmt.Errorf("%s: given for a connection of another host; accepted: with --from app, --from proxy", given.name)
		default:
			*given.into = *given.value
		}
	}
	return []trace.Path{{Family: packet.Family, Journey: trace.Walk(pod, connection)}}, nil
}
