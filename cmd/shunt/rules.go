package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shunt-dev/shunt/cmd/internal/injectflags"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/manifest"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
)

const rulesLong = `Print the netfilter rules of a pod, in the form that iptables-save writes and iptables-restore reads, with the routing
that they need as comments. Nothing is changed, and no Linux kernel is needed.

The rules are those of shunt-init's flags, or of the pods in manifest files (-f FILE, a folder of them, or - for stdin; can be
repeated): of a pod that is injected, those of its init container's arguments; of any other, those that injection would give it,
by what its annotations say, and by the injector's configuration (--config FILE) where they say nothing.

  shunt rules -m TPROXY -o 3306
  shunt rules --family 6
  shunt rules -f deployment.yaml

Usage:
  shunt rules [--family 4|6|both] [shunt-init's flags]
  shunt rules [--family 4|6|both] [-R] [--config FILE] -f FILE

Flags of its own:
      --family VALUE     4, 6 or both (default both; with --ipv6=off: 4)
  -f, --filename FILE    file with manifests, folder of such files, or - for stdin; can be repeated
  -R, --recursive        read what is below the folders' folders too
      --config FILE      with -f: the injector's configuration, YAML
  -h, --help             print this

shunt-init's flags:
`

// rulesArgs are the arguments, its own taken out of shunt-init's.
type rulesArgs struct {
	help     bool
	families []ruleset.Family // nil where nothing is said
	files    sources
	config   *string // file; nil where none is named
	rest     []string
}

func newRules(name string) *cobra.Command {
	return &cobra.Command{
		Use:   "rules [-f FILE | shunt-init's flags]",
		Short: "Print the rules of shunt-init's flags, or of a pod",
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
			case len(parsed.files.names) > 0:
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
			parsed.files.recursive = true
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
				return parsed, fmt.Errorf("%s: Required value; accepted: a value behind it", name)
			}
			value = args[i]
		}
		switch name {
		case "--family":
			family = &value
		case "--config":
			parsed.config = &value
		default:
			parsed.files.names = append(parsed.files.names, value)
		}
	}
	if err := parsed.check(); err != nil {
		return parsed, err
	}
	return parsed, parsed.setFamilies(family)
}

func (a *rulesArgs) check() error {
	named := len(a.files.names) > 0
	switch {
	case named && len(a.rest) > 0:
		return fmt.Errorf("%q beside -f; accepted: files, or shunt-init's flags", a.rest[0])
	case !named && a.files.recursive:
		return errors.New("--recursive without -f; accepted: beside -f with a folder")
	case !named && a.config != nil:
		return errors.New("--config without -f; accepted: beside -f, whose pods it is for")
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
		if _, err := fmt.Fprintf(stdout, "# %s\n%s", family, ruleset.Build(spec, family)); err != nil {
			return fmt.Errorf("print the rules: %w", err)
		}
	}
	return nil
}

// injector is the configuration that pods are injected by.
func (a *rulesArgs) injector() (config.Config, error) {
	if a.config == nil {
		return config.Default(), nil
	}
	return injectflags.ReadFile(*a.config)
}

// rulesOfFiles prints the rules of every pod, each under its name.
func rulesOfFiles(args rulesArgs, stdin io.Reader, stdout, stderr io.Writer) error {
	cfg, err := args.injector()
	if err != nil {
		return usage(err)
	}
	inputs, err := args.files.read(stdin)
	if err != nil {
		return err
	}
	injector := manifest.Injector{Config: cfg, Namespace: "default", Namespaces: namespacesOf(inputs)}
	return eachInterception(injector, inputs, stderr, func(pod manifest.Interception) error {
		if pod.Mode == interception.ModeNone {
			fmt.Fprintf(stderr, "%s: no rules: the pod asks for the proxy alone: %s: NONE\n", pod.Place, annotation.InterceptionModeKey)
			return nil
		}
		fmt.Fprintf(stdout, "# %s\n", pod.Place)
		return printRules(stdout, pod.Spec, pod.Options, args.families)
	})
}

// eachInterception calls show for each pod of the inputs that has an init
// container of ours, or would have one, and names the others on stderr.
func eachInterception(
	injector manifest.Injector, inputs []input, stderr io.Writer, show func(manifest.Interception) error,
) error {
	found := 0
	var errs []error
	var names []string
	for _, in := range inputs {
		names = append(names, in.name)
		for _, doc := range in.docs {
			pods, notes, err := injector.Interceptions(doc)
			errs = append(errs, err)
			for _, note := range notes {
				fmt.Fprintln(stderr, note)
			}
			found += len(pods) + len(notes)
			for _, pod := range pods {
				errs = append(errs, show(pod))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if found == 0 {
		return fmt.Errorf("%s: no pod found; accepted: %s, List", strings.Join(names, ", "), strings.Join(manifest.Kinds(), ", "))
	}
	return nil
}
