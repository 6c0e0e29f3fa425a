package strict

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// MostTold is how many faults of a pod, and how many warnings, are told. The
// rest is counted: a pod of 3 MB can have 100,000 of them.
const MostTold = 10

// MaxDetail is the longest detail of a fault that is told whole, in bytes.
const MaxDetail = 1000

// longestQuote is how much of a value a message quotes, in bytes: an
// annotation may hold 256 KiB.
const longestQuote = 200

// Faults collects what is wrong with a pod or a text. Its zero value is empty.
type Faults struct {
	Told field.ErrorList // the first MostTold ones
	More int             // how many there are besides
}

// Add calls fault only where its result is told: to word a fault takes longer
// than to find it.
func (f *Faults) Add(fault func() *field.Error) {
	if len(f.Told) == MostTold {
		f.More++
		return
	}
	f.Told = append(f.Told, shortenFault(fault()))
}

// AddAll takes over faults that were found elsewhere.
func (f *Faults) AddAll(errs field.ErrorList) {
	for _, err := range errs {
		f.Add(func() *field.Error { return err })
	}
}

// Merge takes over faults, those that are only counted too.
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

// AndMore words how many faults there are besides those that are told; it
// returns nothing for 0.
func AndMore(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("and %d more", n)
}

// Shorten keeps as much of a text as a message may quote.
func Shorten(text string) string { return Cut(text, longestQuote) }

// Cut keeps the given number of bytes of a text, and marks what it leaves out.
func Cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// Warnings collects what a pod's owner should be told. Its zero value is empty.
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

// Count adds so many warnings that nobody has worded.
func (w *Warnings) Count(n int) { w.more += n }

// Lines returns the warnings, and a line that counts those that are not told.
func (w *Warnings) Lines() []string {
	if w.more == 0 {
		return w.told
	}
	return append(w.told, AndMore(w.more))
}
