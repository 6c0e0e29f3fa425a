package interception

import "fmt"

// ValueError reports a text that does not parse as what its place needs.
type ValueError struct {
	Value    string // the offending text: one element where the input is a list
	Reason   string // what is wrong with it; empty when Accepted says enough
	Accepted string // what is accepted in its place
}

// Error says the value, what is wrong with it and what is accepted, in one line.
func (e *ValueError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("invalid value %q: accepted: %s", e.Value, e.Accepted)
	}
	return fmt.Sprintf("invalid value %q: %s; accepted: %s", e.Value, e.Reason, e.Accepted)
}

// FlagError names the flag of shunt-init that an error is about.
type FlagError struct {
	Flag string // long name with its dashes, for example "--envoy-port"
	Err  error
}

// Error says the flag and what is wrong with it, in one line.
func (e *FlagError) Error() string { return e.Flag + ": " + e.Err.Error() }

// Unwrap returns what is wrong with the flag, a *ValueError where it is its value.
func (e *FlagError) Unwrap() error { return e.Err }

func flagErrorf(flag, format string, args ...any) error {
	return &FlagError{Flag: "--" + flag, Err: fmt.Errorf(format, args...)}
}
