package live

import (
	"strconv"
	"strings"
	"unicode"

	"github.com/shunt-dev/shunt/inject/strict"
)

// printable keeps what a pod's author wrote from reaching a terminal as anything
// but one line of text.
func printable(text string) string {
	text = strict.Shorten(text)
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

// orNone prints a value, or a dash.
func orNone(text string) string {
	if text == "" {
		return "-"
	}
	return printable(text)
}
