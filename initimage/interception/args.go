package interception

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"
)

// Args prints a spec and options as arguments of shunt-init. All values of
// the spec are spelled out, so that an injector and an init image of
// different versions cannot disagree on a default.
func Args(spec Spec, opts Options) []string {
	a := &arguments{Spec: spec, Options: opts, mode: spec.Mode(), system: spec.System}
	var args []string
	for _, def := range specFlags {
		args = append(args, "-"+def.short, def.get(a))
	}
	defaults := &arguments{Options: DefaultOptions()}
	for _, def := range optionFlags {
		if value := def.get(a); value != def.get(defaults) {
			args = append(args, "--"+def.name+"="+value)
		}
	}
	return args
}

// istioCommand is the first argument of Istio's init container, whose image
// holds several programs.
const istioCommand = "istio-iptables"

// ParseArgs reads the arguments of shunt-init into a validated spec. A flag
// that is absent has its value in Default or DefaultOptions; in particular,
// everything is intercepted that no flag leaves alone. The error joins a
// *FlagError for every flag that is wrong; pflag.ErrHelp asks for Usage.
func ParseArgs(args []string) (Spec, Options, error) {
	a := &arguments{Spec: Default(), Options: DefaultOptions()}
	fs, values := newFlagSet(a)
	if len(args) > 0 && args[0] == istioCommand {
		args = args[1:]
	}
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
	errs = append(errs, a.settleSystem()...)
	if len(errs) == 0 {
		errs = append(errs, a.Validate())
	}
	if err := errors.Join(errs...); err != nil {
		return Spec{}, Options{}, err
	}
	return a.Spec, a.Options, nil
}

// Usage describes the flags of shunt-init, one a line.
func Usage() string {
	fs, _ := newFlagSet(&arguments{Spec: Default(), Options: DefaultOptions(), mode: ModeRedirect})
	return fs.FlagUsages()
}

// settleSystem makes one of -m and --system, which must not contradict each
// other.
func (a *arguments) settleSystem() []error {
	fromMode := map[Mode]System{ModeRedirect: SystemRedirect, ModeTProxy: SystemTProxy}[a.mode]
	switch {
	case a.system == "" && fromMode == "":
		return nil
	case a.system == "":
		a.System = fromMode
	case fromMode != "" && fromMode != a.system:
		return []error{flagErrorf(flagSystem, "%q contradicts --%s %q; accepted: one of the two, or both alike",
			a.system, flagMode, a.mode)}
	default:
		a.System = a.system
	}
	return nil
}

func newFlagSet(a *arguments) (*pflag.FlagSet, []*flagValue) {
	fs := pflag.NewFlagSet("shunt-init", pflag.ContinueOnError)
	fs.SortFlags = false
	fs.Usage = func() {}
	var values []*flagValue
	for _, defs := range [][]flagDef{specFlags, {systemFlag}, optionFlags, {istioFlag}} {
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
	given  bool
	errs   []error
}

// Set reads one occurrence of the flag.
func (v *flagValue) Set(text string) error {
	if v.given {
		v.errs = append(v.errs, flagErrorf(v.def.name, "invalid value %q: given more than once; accepted: one value", text))
		return nil
	}
	v.given = true
	if err := v.def.set(v.target, text); err != nil {
		v.errs = append(v.errs, &FlagError{Flag: "--" + v.def.name, Err: err})
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
