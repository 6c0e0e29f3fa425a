package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/initimage/trace"
)

// Streams are what a source reads besides its files, and where it writes notes.
type Streams struct {
	Stdin  io.Reader
	Stderr io.Writer
	// Live is where one real tcp connection is made to, from the running pod that is
	// read; the zero value for none.
	Live netip.AddrPort
}

// kind is one way to name the pods of a command.
type kind interface {
	addFlags(fs *pflag.FlagSet)
	name() string // of its flag, for messages: "--filename"
	given() bool
	check() error // of its flags, once they are parsed
	read(ctx context.Context, streams Streams) ([]trace.Pod, error)
}

// Source is where the rules of pods are read from. Without a flag it is the rules
// of shunt-init, with its flags behind --.
type Source struct {
	kinds []kind
	args  []string // flags of shunt-init
	dash  bool     // they are given
}

// New returns a source of which nothing is known yet.
func New() *Source { return &Source{kinds: []kind{&Manifests{}, &dumps{}, &namespace{}}} }

// AddFlags adds the flags of all sources.
func (s *Source) AddFlags(fs *pflag.FlagSet) {
	for _, k := range s.kinds {
		k.addFlags(fs)
	}
}

// Names returns the flags that name a source, as "--filename".
func (s *Source) Names() []string {
	names := make([]string, len(s.kinds))
	for i, k := range s.kinds {
		names[i] = k.name()
	}
	return names
}

// SetArgs takes the flags of shunt-init, which stand behind --.
func (s *Source) SetArgs(args []string) { s.args, s.dash = args, true }

// Check returns what is wrong with the flags: at most one source is to be named.
func (s *Source) Check() error {
	errs := []error{s.ambiguous()}
	for _, k := range s.kinds {
		errs = append(errs, k.check())
	}
	return errors.Join(errs...)
}

// CheckBoth is Check for two sources that share the flags that name none: such a
// flag is in its place if one of the two sources uses it.
func CheckBoth(one, other *Source) error {
	errs := []error{one.ambiguous(), other.ambiguous()}
	for i, k := range one.kinds {
		if k.given() || !other.kinds[i].given() {
			errs = append(errs, k.check())
		}
		if other.kinds[i].given() {
			errs = append(errs, other.kinds[i].check())
		}
	}
	return errors.Join(errs...)
}

// ambiguous returns an error if more than one source is named.
func (s *Source) ambiguous() error {
	var given []string
	for _, k := range s.kinds {
		if k.given() {
			given = append(given, k.name())
		}
	}
	if s.dash {
		given = append(given, "-- "+strings.Join(s.args, " "))
	}
	if len(given) > 1 {
		return fmt.Errorf("%s: given together; accepted: one of %s, or shunt-init's flags behind --",
			strings.Join(given, " and "), strings.Join(s.Names(), ", "))
	}
	return nil
}

// Running reports whether the source is a pod that runs.
func (s *Source) Running() bool {
	return slices.ContainsFunc(s.kinds, func(k kind) bool {
		switch k.(type) {
		case *namespace, *running:
			return k.given()
		}
		return false
	})
}

// Read returns the pods of the source.
func (s *Source) Read(ctx context.Context, streams Streams) ([]trace.Pod, error) {
	if i := slices.IndexFunc(s.kinds, kind.given); i >= 0 {
		return s.kinds[i].read(ctx, streams)
	}
	pod, err := OfFlags(s.args)
	return []trace.Pod{pod}, err
}
