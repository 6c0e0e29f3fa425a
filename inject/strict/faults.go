package strict

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// MostTold is how many faults of a pod, and how many warnings, are reported. The
// rest is counted: a pod of 3 MB can have 100,000 of them.
const MostTold = 10

// MaxDetail is the longest detail of a fault that is reported whole, in bytes.
const MaxDetail = 1000

// longestQuote is how much of a value a message quotes, in bytes: an
// annotation may hold 256 KiB.
const longestQuote = 200

// Faults collects what is wrong with a pod or a text. Its zero value is empty.
type Faults struct {
	Told field.ErrorList // the first MostTold ones
	More int             // how many there are besides
}

// Add calls fault only if its result is kept: describing a fault takes longer than
// finding it.
func (f *Faults) Add(fault func() *field.Error) {
	if len(f.Told) == MostTold {
		f.More++
		return
	}
	f.Told = append(f.Told, shortenFault(fault()))
}

// AddAll adds faults that were found elsewhere.
func (f *Faults) AddAll(errs field.ErrorList) {
	for _, err := range errs {
		f.Add(func() *field.Error { return err })
	}
}

// Merge adds other faults, including those that are only counted.
func (f *Faults) Merge(others Faults) {
	f.AddAll(others.Told)
	f.More += others.More
}

// Aggregate returns an error that joins them; nil where there is none.
func (f *Faults) Aggregate() utilerrors.Aggregate {
	var errs []error
	for _, err := range f.Told {
		errs = append(errs, err)
	}
	if f.More > 0 {
		errs = append(errs, errors.New(AndMore(f.More)))
	}
	return utilerrors.NewAggregate(errs)
}

// Inside returns an InsideError for the faults; nil where there is none.
func (f *Faults) Inside() error {
	if len(f.Told) == 0 {
		return nil
	}
	return &InsideError{*f}
}

// InsideError is what is wrong inside a value that has fields of its own, with
// paths that begin at the value.
type InsideError struct{ Faults }

func (e *InsideError) Error() string { return e.Aggregate().Error() }

// shortenFault keeps a fault readable whatever it quotes of the pod.
func shortenFault(err *field.Error) *field.Error {
	short := *err
	short.Field, short.Detail = Shorten(err.Field), Cut(err.Detail, MaxDetail)
	switch value := reflect.ValueOf(err.BadValue); value.Kind() {
	case reflect.String:
		if value.Len() > longestQuote {
			short.BadValue = Shorten(value.String())
		}
	case reflect.Slice, reflect.Map:
		if text := fmt.Sprint(err.BadValue); len(text) > longestQuote {
			short.BadValue = Shorten(text)
		}
	}
	return &short
}

// AndMore returns a text with the number of further faults, or nothing for 0.
func AndMore(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("and %d more", n)
}

// Shorten returns as much of a text as a message may quote.
func Shorten(text string) string { return Cut(text, longestQuote) }

// Cut returns at most the given number of bytes of a text, and marks a cut.
func Cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// Warnings collects warnings for a pod's owner. Its zero value is empty.
type Warnings struct {
	told []string // the first MostTold ones
	more int
}

// Add adds warnings, one line each.
func (w *Warnings) Add(texts ...string) {
	told := min(len(texts), MostTold-len(w.told))
	w.told = append(w.told, texts[:told]...)
	w.more += len(texts) - told
}

// Count adds n warnings without their texts.
func (w *Warnings) Count(n int) { w.more += n }

// Lines returns the warnings, and a line with the number of further ones.
func (w *Warnings) Lines() []string {
	if w.more == 0 {
		return w.told
	}
	return append(w.told, AndMore(w.more))
}
