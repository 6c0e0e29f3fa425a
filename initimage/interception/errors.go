package interception

import "fmt"

// ValueError is the error of a text that does not parse.
type ValueError struct {
	Value    string // the invalid text: one element if the input is a list
	Reason   string // what is wrong with it; empty if Accepted says enough
	Accepted string // what is accepted in its place
}

// Error returns the value, what is wrong with it and what is accepted, in one line.
func (e *ValueError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("invalid value %q: accepted: %s", e.Value, e.Accepted)
	}
	return fmt.Sprintf("invalid value %q: %s; accepted: %s", e.Value, e.Reason, e.Accepted)
}

// FlagError is an error about one flag of shunt-init.
type FlagError struct {
	Flag string // long name with its dashes, for example "--envoy-port"
	Err  error
}

// Error returns the flag and what is wrong with it, in one line.
func (e *FlagError) Error() string { return e.Flag + ": " + e.Err.Error() }

// Unwrap returns what is wrong with the flag: a *ValueError if it is its value.
func (e *FlagError) Unwrap() error { return e.Err }

func flagErrorf(flag, format string, args ...any) error {
	return &FlagError{Flag: "--" + flag, Err: fmt.Errorf(format, args...)}
}
