package webhook

import (
	"strings"
	"unicode"
	"unicode/utf8"

	admissionv1 "k8s.io/api/admission/v1"
)

// How much of a request is repeated in answers and logs, in bytes of JSON.
const (
	// longestName is Kubernetes' limit for an object's name.
	longestName = 253
	// maxMessage, maxCauses and maxWarnings keep an answer below 16 kB, without its
	// patch.
	maxMessage  = 6 << 10
	maxCauses   = 6 << 10
	maxWarnings = 2 << 10
	// maxLogged keeps a line of the log below 4 kB.
	maxLogged = 2 << 10
	// maxDifference keeps one long field of a configuration from hiding others.
	maxDifference = 256
)

// clip cuts a text at a character, so that it takes at most so many bytes of JSON.
func clip(text string, limit int) string {
	const rest = " …"
	if len(text) > limit {
		text = text[:limit]
		limit -= len(rest)
	} else if size := quotedSize(text); size <= limit {
		return strings.ToValidUTF8(text, "\uFFFD")
	} else {
		limit -= len(rest)
	}
	size := 0
	for i, r := range text {
		if size += quotedRune(r); size > limit {
			return strings.ToValidUTF8(text[:i], "\uFFFD") + rest
		}
	}
	return strings.ToValidUTF8(text, "") + rest
}

func quotedSize(text string) int {
	size := 0
	for _, r := range text {
		size += quotedRune(r)
	}
	return size
}

// quotedRune returns the most that a character takes in JSON or in a line of text,
// whoever writes it.
func quotedRune(r rune) int {
	switch {
	case r == '"' || r == '\\':
		return len(`\"`)
	case r == '<' || r == '>' || r == '&' || r < ' ' || r == utf8.RuneError || r == '\u2028' || r == '\u2029' || r == 0x7f:
		return len(`\u0000`)
	case !unicode.IsPrint(r):
		return len(`\U00000000`)
	default:
		return utf8.RuneLen(r)
	}
}

// fitResponse keeps a response below 16 kB, without its patch.
func fitResponse(response *admissionv1.AdmissionResponse) {
	response.Warnings = fitTexts(response.Warnings, maxWarnings)
	result := response.Result
	if result == nil {
		return
	}
	result.Message = clip(result.Message, maxMessage)
	if result.Details == nil {
		return
	}
	result.Details.Name = clip(result.Details.Name, longestName)
	size := 0
	for i, cause := range result.Details.Causes {
		const around = 64 // the keys, quotation marks and brackets of a cause
		size += around + quotedSize(string(cause.Type)) + quotedSize(cause.Message) + quotedSize(cause.Field)
		if size > maxCauses {
			result.Details.Causes = result.Details.Causes[:i]
			return
		}
	}
}

// fitTexts keeps the texts that fit, and cuts the first one that does not.
func fitTexts(texts []string, limit int) []string {
	for i, text := range texts {
		size := quotedSize(text) + len(`"",`)
		if size > limit {
			return append(texts[:i:i], clip(text, max(limit, longestName)))
		}
		limit -= size
	}
	return texts
}
