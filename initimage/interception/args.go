package interception

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Args prints a spec and options as arguments of shunt-init. All that Istio
// has a flag for is spelled out, so that an injector and an init image of
// different versions cannot disagree on a default. A list that is too long for
// one argument is printed in several.
func Args(spec Spec, opts Options) []string {
	a := &arguments{Spec: spec, Options: opts, mode: spec.Mode(), system: spec.System}
	var args []string
	for _, def := range specFlags {
		switch {
		case def.name != flagMode || a.mode != "":
			for _, part := range def.parts(def.get(a)) {
				args = append(args, "-"+def.short, part)
			}
		default:
			args = append(args, "--"+flagSystem, string(a.system))
		}
	}
	defaults := &arguments{Spec: Default(), Options: DefaultOptions()}
	for _, def := range slices.Concat(moreFlags, optionFlags) {
		if value := def.get(a); value != def.get(defaults) {
			for _, part := range def.parts(value) {
				args = append(args, "--"+def.name+"="+part)
			}
		}
	}
	return args
}

// MaxArgument is the length from which on Linux starts no program with an
// argument or a variable, its end included (MAX_ARG_STRLEN of
// linux/binfmts.h, where a page has 4 KiB).
const MaxArgument = 128 << 10

// parts cuts the value of a list to lengths that an argument may have, half of
// MaxArgument and less.
func (def flagDef) parts(value string) []string {
	var parts []string
	for def.isList && len(value) > MaxArgument/2 {
		end := strings.LastIndexByte(value[:MaxArgument/2], ',')
		parts = append(parts, value[:end])
		value = value[end+1:]
	}
	return append(parts, value)
}

// ShareCommand is the first argument that asks shunt-init for what the proxy
// needs and for no rules: mode NONE.
const ShareCommand = "share"

// istioCommand is the first argument of Istio's init container, whose image
// holds several programs.
const istioCommand = "istio-iptables"

// ParseArgs reads the arguments of shunt-init into a validated spec. A flag
// that is absent has its value in DefaultFor the system or DefaultOptions; in
// particular, everything is intercepted that no flag leaves alone. The error
// joins a *FlagError for every flag that is wrong; pflag.ErrHelp asks for Usage.
func ParseArgs(args []string) (Spec, Options, error) {
	if len(args) > 0 && args[0] == istioCommand {
		args = args[1:]
	}
	fs, values := newFlagSet(&arguments{Spec: Default(), Options: DefaultOptions()})
	parseErr := fs.Parse(args)
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
	for _, word := range fs.Args() {
		errs = append(errs, fmt.Errorf("unexpected argument %q; accepted: flags only", word))
	}
	a, err := settle(values)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return Spec{}, Options{}, err
	}
	if err := errors.Join(a.Spec.Validate(), a.Options.Validate()); err != nil {
		return Spec{}, Options{}, err
	}
	return a.Spec, a.Options, nil
}

// settle finds out which system the flags ask for, and puts the values that
// were given over that system's defaults.
func settle(values []*flagValue) (*arguments, error) {
	said := values[0].target
	system, err := said.settleSystem()
	a := &arguments{Spec: DefaultFor(system), Options: DefaultOptions()}
	errs := []error{err}
	for _, v := range values {
		if v.given() && len(v.errs) == 0 {
			errs = append(errs, v.def.read(a, strings.Join(v.texts, ",")))
		}
	}
	return a, errors.Join(errs...)
}

// Usage describes the flags of shunt-init, one a line.
func Usage() string {
	fs, _ := newFlagSet(&arguments{Spec: Default(), Options: DefaultOptions(), mode: ModeRedirect})
	return fs.FlagUsages()
}

// settleSystem makes one of -m and --system, which must not contradict each
// other.
func (a *arguments) settleSystem() (System, error) {
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

func newFlagSet(a *arguments) (*pflag.FlagSet, []*flagValue) {
	fs := pflag.NewFlagSet("shunt-init", pflag.ContinueOnError)
	fs.SortFlags = false
	fs.Usage = func() {}
	var values []*flagValue
	for _, defs := range [][]flagDef{specFlags, {systemFlag}, moreFlags, optionFlags, {istioFlag}} {
		for _, def := range defs {
			v := &flagValue{def: def, target: a}
			values = append(values, v)
			flag := fs.VarPF(v, def.name, def.short, def.usage)
			if def.isBool {
				flag.NoOptDefVal = "true"
			}
		}
	}
	return fs, values
}

// flagValue is a pflag.Value that keeps its errors rather than returning
// them: pflag stops at the first, and all of them are wanted.
type flagValue struct {
	def    flagDef
	target *arguments
	texts  []string // given, more than one of a list
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

// Type is the word for the value in Usage.
func (v *flagValue) Type() string {
	if v.def.isBool {
		return "bool"
	}
	return "value"
}

// Values are what the flags of shunt-init would say of a spec and options, all
// of them, by their long names without dashes.
func Values(spec Spec, opts Options) map[string]string {
	a := &arguments{Spec: spec, Options: opts, mode: spec.Mode(), system: spec.System}
	values := map[string]string{}
	for _, def := range slices.Concat(specFlags, moreFlags, optionFlags) {
		values[def.name] = def.get(a)
	}
	return values
}
