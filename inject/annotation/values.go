package annotation

import (
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/shunt-dev/shunt/initimage/interception"
)

const (
	acceptedTruth    = "true, false"
	acceptedPorts    = "ports from 1 to 65535 and ranges such as 8000-8100, separated by commas"
	acceptedRanges   = "IPv4 and IPv6 addresses and CIDR ranges such as 10.0.0.0/8 or fd00::/8, separated by commas"
	acceptedNames    = "network interface names of at most 15 characters, separated by commas"
	acceptedWildcard = "* for all, an empty value for none, or "

	fromConfiguration = "from the injector's configuration"
	ofConfiguration   = fromConfiguration + ", by default "
)

// into returns a function that parses a text and stores the result in the field
// that place returns.
func into[T any](parse func(string) (T, error), place func(*Request) *T) func(*Request, string) error {
	return func(r *Request, text string) error {
		value, err := parse(text)
		if err == nil {
			*place(r) = value
		}
		return err
	}
}

// parseMode reads an interception mode. interception.ParseMode does not know NONE,
// which has no rules.
func parseMode(text string) (interception.Mode, error) {
	if text == string(interception.ModeNone) {
		return interception.ModeNone, nil
	}
	return interception.ParseMode(text)
}

// parseTruth reads true or false.
func parseTruth(text string) (*bool, error) { return parseEither(text, "true", "false") }

// parseEnabled reads the value of NamespaceInjectionKey.
func parseEnabled(text string) (*bool, error) {
	return parseEither(text, NamespaceEnabled, NamespaceDisabled)
}

// readRevision stores an invalid name, too: the webhooks' selectors cannot tell it
// from the name of a revision that is not installed, so it is treated as one.
func readRevision(r *Request, text string) error {
	r.Revision = text
	if wrong := validation.IsDNS1123Label(text); len(wrong) > 0 {
		return &interception.ValueError{Value: text, Accepted: "a DNS label"}
	}
	return nil
}

// parseEither reads one of two values, as true or false. It is case-sensitive, as
// Istio's labels are.
func parseEither(text, yes, no string) (*bool, error) {
	if text != yes && text != no {
		return nil, &interception.ValueError{Value: text, Accepted: strconv.Quote(yes) + " or " + strconv.Quote(no)}
	}
	return new(text == yes), nil
}

// oneOf returns a parser of one of the accepted values.
func oneOf[T ~string](accepted ...T) func(string) (T, error) {
	return func(text string) (T, error) {
		if slices.Contains(accepted, T(text)) {
			return T(text), nil
		}
		names := make([]string, len(accepted))
		for i, value := range accepted {
			names[i] = string(value)
		}
		return "", &interception.ValueError{Value: text, Accepted: strings.Join(names, ", ")}
	}
}
