package interception

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Args prints a spec and options as arguments of shunt-init. It prints every flag
// that Istio has, so that an injector and an init image of different versions
// cannot disagree on a default. A list that is too long for one argument becomes
// several.
func Args(spec Spec, opts Options) []string {
	values := &arguments{Spec: spec, Options: opts, mode: spec.Mode(), system: spec.System}
	var args []string
	for _, def := range specFlags {
		switch {
		case def.name != flagMode || values.mode != "":
			for _, part := range def.parts(def.get(values)) {
				args = append(args, "-"+def.short, part)
			}
		default:
			args = append(args, "--"+flagSystem, string(values.system))
		}
	}
	defaults := &arguments{Spec: Default(), Options: DefaultOptions()}
	for _, def := range slices.Concat(moreFlags, optionFlags) {
		if value := def.get(values); value != def.get(defaults) {
			for _, part := range def.parts(value) {
				args = append(args, "--"+def.name+"="+part)
			}
		}
	}
	return args
}

// MaxArgument is the length, end included, from which on Linux starts no program
// with an argument or a variable (MAX_ARG_STRLEN of linux/binfmts.h, with pages of
// 4 KiB).
const MaxArgument = 128 << 10

// parts splits the value of a list into arguments of at most half of MaxArgument.
func (def flagDef) parts(value string) []string {
	var parts []string
	for def.isList && len(value) > MaxArgument/2 {
		end := strings.LastIndexByte(value[:MaxArgument/2], ',')
		parts = append(parts, value[:end])
		value = value[end+1:]
	}
	return append(parts, value)
}

// ShareCommand is the first argument that makes shunt-init leave what the proxy
// needs, and install no rules: mode NONE.
const ShareCommand = "share"

// istioCommand is the first argument of Istio's init container, whose image holds
// several programs.
const istioCommand = "istio-iptables"

// ParseArgs reads the arguments of shunt-init, or of its gate, into a validated
// spec. A flag that is absent has its value in DefaultFor the system or in
// DefaultOptions. So everything is intercepted that no flag excludes. The error
// joins a *FlagError for every invalid flag; pflag.ErrHelp asks for Usage.
func ParseArgs(args []string) (Spec, Options, error) {
	if len(args) > 0 && (args[0] == istioCommand || args[0] == GateCommand) {
		args = args[1:]
	}
	flags, values := newFlagSet(&arguments{Spec: Default(), Options: DefaultOptions()})
	parseErr := flags.Parse(args)
	if errors.Is(parseErr, pflag.ErrHelp) {
		return Spec{}, Options{}, parseErr
	}
	var errs []error
	for _, v := range values {
		errs = append(errs, v.errs...)
	}
	if parseErr != nil {
		errs = append(errs, fmt.Errorf("%w; accepted: the flags that --help lists", parseErr))
	}
	for _, word := range flags.Args() {
		errs = append(errs, fmt.Errorf("unexpected argument %q; accepted: flags only", word))
	}
	a, err := resolve(values)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return Spec{}, Options{}, err
	}
	if err := errors.Join(a.Spec.Validate(), a.Options.Validate(), a.backendContradiction()); err != nil {
		return Spec{}, Options{}, err
	}
	return a.Spec, a.Options, nil
}

// resolve finds the system that the flags ask for, and sets the given values over
// that system's defaults.
func resolve(values []*flagValue) (*arguments, error) {
	given := values[0].target
	system, err := given.chooseSystem()
	a := &arguments{Spec: DefaultFor(system), Options: DefaultOptions()}
	errs := []error{err}
	for _, v := range values {
		if v.given() && len(v.errs) == 0 {
			errs = append(errs, v.def.read(a, strings.Join(v.texts, ",")))
		}
	}
	return a, errors.Join(errs...)
}

// Usage returns the help on shunt-init's flags, one a line.
func Usage() string {
	fs, _ := newFlagSet(&arguments{Spec: Default(), Options: DefaultOptions(), mode: ModeRedirect})
	return fs.FlagUsages()
}

// chooseSystem returns the system that -m or --system asks for. The two must not
// contradict each other.
func (a *arguments) chooseSystem() (System, error) {
	fromMode := map[Mode]System{ModeRedirect: SystemRedirect, ModeTProxy: SystemTProxy}[a.mode]
	switch {
	case a.system == "" && fromMode == "":
		return SystemRedirect, nil
	case a.system == "":
		return fromMode, nil
	case fromMode != "" && fromMode != a.system:
		return a.system, flagErrorf(flagSystem, "%q contradicts --%s %q; accepted: one of the two, or both alike",
			a.system, flagMode, a.mode)
	default:
		return a.system, nil
	}
}

// backendContradiction finds a spec that the backend does not have. Without conntrack
// each packet of a connection meets a rule, and those of iptables cost more than
// conntrack does.
func (a *arguments) backendContradiction() error {
	if a.NoConntrack && a.Backend != BackendNFTables {
		return flagErrorf(flagNoConntrack, "not with --%s=%s; accepted: --%s=%s", flagBackend, a.Backend, flagBackend, BackendNFTables)
	}
	return nil
}

func newFlagSet(a *arguments) (*pflag.FlagSet, []*flagValue) {
	flags := pflag.NewFlagSet("shunt-init", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.Usage = func() {}
	var values []*flagValue
	for _, defs := range [][]flagDef{specFlags, {systemFlag}, moreFlags, optionFlags, {istioFlag}} {
		for _, def := range defs {
			v := &flagValue{def: def, target: a}
			values = append(values, v)
			flag := flags.VarPF(v, def.name, def.short, def.usage)
			if def.isBool {
				flag.NoOptDefVal = "true"
			}
		}
	}
	return flags, values
}

// flagValue is a pflag.Value that collects its errors: pflag would stop at the
// first.
type flagValue struct {
	def    flagDef
	target *arguments
	texts  []string // as given; several for a list
	errs   []error
}

func (v *flagValue) given() bool { return len(v.texts) > 0 }

// Set reads one occurrence of the flag.
func (v *flagValue) Set(text string) error {
	if v.given() && !v.def.isList {
		v.errs = append(v.errs, flagErrorf(v.def.name, "invalid value %q: given more than once; accepted: one value", text))
		return nil
	}
	v.texts = append(v.texts, text)
	if err := v.def.read(v.target, text); err != nil {
		v.errs = append(v.errs, err)
	}
	return nil
}

// String prints the value that the flag has now.
func (v *flagValue) String() string {
	if v.target == nil {
		return ""
	}
	return v.def.get(v.target)
}

// Type returns the word for the value in Usage.
func (v *flagValue) Type() string {
	if v.def.isBool {
		return "bool"
	}
	return "value"
}

// Values returns the value of every flag of shunt-init for a spec and options, by
// the flags' long names without dashes.
func Values(spec Spec, opts Options) map[string]string {
	a := &arguments{Spec: spec, Options: opts, mode: spec.Mode(), system: spec.System}
	values := map[string]string{}
	for _, def := range slices.Concat(specFlags, moreFlags, optionFlags) {
		values[def.name] = def.get(a)
	}
	return values
}
