package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/manifest"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/source"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/inject/annotation"
)

const rulesLong = `Print the rules of a pod, or of shunt-init's flags, in the format of iptables-save, or with --backend nftables as nft -f
takes them.

Comments show the routing that the rules need. Nothing is changed, and no Linux kernel is needed. For an injected pod, the rules
are those of its init container; for any other pod, those that injection would give it.

  shunt rules -f deployment.yaml
  shunt rules -m TPROXY -o 3306 --family 6
  shunt rules -m TPROXY --backend nftables | nft -c -f -

Usage:
  shunt rules [--family 4|6|both] [-R] [--config FILE] -f FILE
  shunt rules [--family 4|6|both] [shunt-init's flags]

Flags:
      --family VALUE     4, 6 or both (default both; 4 with --ipv6=off)
  -f, --filename FILE    manifest file, folder of them, or - for stdin; can be repeated
  -R, --recursive        with -f: read subfolders too
      --config FILE      with -f: the injector's configuration, YAML or JSON, or a ConfigMap that holds it
  -h, --help             print this help

Flags of shunt-init:
`

// rulesArgs holds the arguments of the command itself, and in rest those of shunt-init.
type rulesArgs struct {
	help      bool
	families  []ruleset.Family // nil if not given
	manifests source.Manifests
	rest      []string
}

func newRules(name string) *cobra.Command {
	return &cobra.Command{
		Use:   "rules [-f FILE | shunt-init's flags]",
		Short: "Print the rules of a pod, or of shunt-init's flags",
		// shunt-init's flags are parsed by shunt-init's own parser.
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			parsed, err := parseRules(args)
			switch {
			case err != nil:
				return usage(err)
			case parsed.help:
				long := strings.ReplaceAll(rulesLong, "  shunt ", "  "+name+" ")
				_, err := io.WriteString(cmd.OutOrStdout(), long+interception.Usage())
				return err
			case len(parsed.manifests.Files.Names) > 0:
				return rulesOfFiles(parsed, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			spec, opts, err := interception.ParseArgs(parsed.rest)
			if err != nil {
				return usage(err)
			}
			return printRules(cmd.OutOrStdout(), spec, opts, parsed.families)
		},
	}
}

// parseRules takes its own flags out. Their values are never shunt-init's:
// none of its flags is called -f, -R, --config or --family.
func parseRules(args []string) (rulesArgs, error) {
	var parsed rulesArgs
	var family *string
	for i := 0; i < len(args); i++ {
		name, value, attached := strings.Cut(args[i], "=")
		if short := strings.TrimPrefix(args[i], "-f"); short != args[i] && short != "" && !attached {
			name, value, attached = "-f", short, true
		}
		switch name {
		case "-h", "--help":
			parsed.help = true
			continue
		case "-R", "--recursive":
			parsed.manifests.Files.Recursive = true
			continue
		case "--":
			continue
		case "-f", "--filename", "--family", "--config":
		default:
			parsed.rest = append(parsed.rest, args[i])
			continue
		}
		if !attached {
			if i++; i == len(args) {
				return parsed, fmt.Errorf("%s: Required value; accepted: a value after it", name)
			}
			value = args[i]
		}
		switch name {
		case "--family":
			family = &value
		case "--config":
			parsed.manifests.Config = &value
		default:
			parsed.manifests.Files.Names = append(parsed.manifests.Files.Names, value)
		}
	}
	if err := parsed.check(); err != nil {
		return parsed, err
	}
	return parsed, parsed.setFamilies(family)
}

func (a *rulesArgs) check() error {
	named := len(a.manifests.Files.Names) > 0
	switch {
	case named && len(a.rest) > 0:
		return fmt.Errorf("%q with -f; accepted: -f, or shunt-init's flags", a.rest[0])
	case !named && a.manifests.Files.Recursive:
		return errors.New("--recursive without -f; accepted: with -f and a folder")
	case !named && a.manifests.Config != nil:
		return errors.New("--config without -f; accepted: with -f")
	}
	return nil
}

func (a *rulesArgs) setFamilies(text *string) error {
	if text == nil {
		return nil
	}
	families := map[string][]ruleset.Family{"4": {ruleset.IPv4}, "6": {ruleset.IPv6}, "both": ruleset.Families}
	var ok bool
	if a.families, ok = families[*text]; !ok {
		return fmt.Errorf("--family: invalid value %q; accepted: 4, 6, both", *text)
	}
	return nil
}

func printRules(stdout io.Writer, spec interception.Spec, opts interception.Options, families []ruleset.Family) error {
	for _, family := range ruleset.Families {
		wanted := slices.Contains(families, family)
		if families == nil {
			wanted = family == ruleset.IPv4 || opts.IPv6 != interception.IPv6Off
		}
		if !wanted {
			continue
		}
		text, err := nft.Text(ruleset.Build(spec, family), opts.Backend)
		if err == nil {
			_, err = fmt.Fprintf(stdout, "# %s\n%s", family, text)
		}
		if err != nil {
			return fmt.Errorf("print the rules: %w", err)
		}
	}
	return nil
}

// rulesOfFiles prints the rules of every pod, each under its name.
func rulesOfFiles(args rulesArgs, stdin io.Reader, stdout, stderr io.Writer) error {
	return args.manifests.Each(stdin, stderr, func(pod manifest.Interception) error {
		if pod.Mode == interception.ModeNone {
			fmt.Fprintf(stderr, "%s: no rules: %s is NONE\n", pod.Place, annotation.InterceptionModeKey)
			return nil
		}
		fmt.Fprintf(stdout, "# %s\n", pod.Place)
		return printRules(stdout, pod.Spec, pod.Options, args.families)
	})
}
