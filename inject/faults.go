package inject

import (
	"errors"
	"fmt"
	"reflect"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// mostTold is how many faults of a pod, and how many warnings, are told. The
// rest is counted: a pod of 3 MB can have 100,000 of them.
const mostTold = 10

// maxDetail is the longest detail of a fault that is told whole.
const maxDetail = 1000

// faults are what a pod is refused for.
type faults struct {
	told field.ErrorList
	more int
}

// add calls fault only where its result is told: to word a fault takes longer
// than to find it.
func (f *faults) add(fault func() *field.Error) {
	if len(f.told) == mostTold {
		f.more++
		return
	}
	f.told = append(f.told, briefFault(fault()))
}

// addAll takes over faults that were found elsewhere.
func (f *faults) addAll(errs field.ErrorList) {
	for _, err := range errs {
		f.add(func() *field.Error { return err })
	}
}

func (f *faults) merge(others faults) {
	f.addAll(others.told)
	f.more += others.more
}

// aggregate is an error for them, or none.
func (f *faults) aggregate() utilerrors.Aggregate {
	var errs []error
	for _, err := range f.told {
		errs = append(errs, err)
	}
	if f.more > 0 {
		errs = append(errs, errors.New(andMore(f.more)))
	}
	return utilerrors.NewAggregate(errs)
}

// briefFault keeps a fault readable whatever it quotes of the pod.
func briefFault(err *field.Error) *field.Error {
	short := *err
	short.Field, short.Detail = shorten(err.Field), cut(err.Detail, maxDetail)
	switch value := reflect.ValueOf(err.BadValue); value.Kind() {
	case reflect.String:
		if value.Len() > longestQuote {
			short.BadValue = shorten(value.String())
		}
	case reflect.Slice, reflect.Map:
		if text := fmt.Sprint(err.BadValue); len(text) > longestQuote {
			short.BadValue = shorten(text)
		}
	}
	return &short
}

// AndMore says how many faults there are beside those that are told; nothing
// where these are all.
func (d Decision) AndMore() string { return andMore(d.More) }

func andMore(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("and %d more", n)
}

// warnings are for a pod's owner.
type warnings struct {
	told []string
	more int
}

func (w *warnings) add(texts ...string) {
	told := min(len(texts), mostTold-len(w.told))
	w.told = append(w.told, texts[:told]...)
	w.more += len(texts) - told
}

// lines are the warnings, one each, and how many there are beside them.
func (w *warnings) lines() []string {
	if w.more == 0 {
		return w.told
	}
	return append(w.told, andMore(w.more))
}
