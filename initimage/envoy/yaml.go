package envoy

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A document is built from objects, lists, strings, integers, booleans and
// durations.

type object []field

// field is a member of an object, with the reason for it as a comment.
type field struct {
	name    string
	value   any
	comment string
}

type list []any

func set(name string, value any) field { return field{name: name, value: value} }

// explained sets a member with a comment above it.
func explained(comment, name string, value any) field {
	return field{name: name, value: value, comment: comment}
}

// typedConfig returns the configuration of an Envoy extension.
func typedConfig(name string, fields ...field) object {
	return append(object{set("@type", "type.googleapis.com/"+name)}, fields...)
}

// extension returns an extension by its name, with its configuration.
func extension(name, config string, fields ...field) object {
	return object{set("name", name), set("typed_config", typedConfig(config, fields...))}
}

// anchored is a value that occurs more than once in a document. It is written out
// at its first place, and referred to at the others (YAML 1.2, 7.1).
type anchored struct {
	name  string
	value any
}

// printer writes a document in block style. Strings are quoted as in JSON unless
// they are plain words, so that none can be misread.
type printer struct {
	strings.Builder
	printed map[string]bool // by the names of anchors
}

func printYAML(document object) string {
	out := &printer{printed: map[string]bool{}}
	out.print(document, "")
	return out.String()
}

func (out *printer) print(value any, indent string) {
	switch v := value.(type) {
	case object:
		for i, f := range v {
			if i > 0 {
				out.WriteString(indent)
			}
			for line := range strings.Lines(f.comment) {
				out.WriteString("# " + strings.TrimSpace(line) + "\n" + indent)
			}
			out.WriteString(word(f.name) + ":")
			out.writeMember(f.value, indent)
		}
	case list:
		for i, element := range v {
			if i > 0 {
				out.WriteString(indent)
			}
			out.WriteString("- ")
			if isCollection(element) {
				out.print(element, indent+"  ")
			} else {
				out.WriteString(scalar(element) + "\n")
			}
		}
	default:
		panic(fmt.Sprintf("a document is no %T", value))
	}
}

// writeMember writes what follows the name of a member.
func (out *printer) writeMember(value any, indent string) {
	if anchor, ok := value.(anchored); ok {
		if out.printed[anchor.name] {
			out.WriteString(" *" + anchor.name + "\n")
			return
		}
		out.printed[anchor.name] = true
		out.WriteString(" &" + anchor.name)
		value = anchor.value
	}
	if !isCollection(value) {
		out.WriteString(" " + scalar(value) + "\n")
		return
	}
	out.WriteString("\n" + indent + "  ")
	out.print(value, indent+"  ")
}

// isCollection reports whether a value is written on lines of its own.
func isCollection(value any) bool {
	switch v := value.(type) {
	case object:
		return len(v) > 0
	case list:
		return len(v) > 0
	default:
		return false
	}
}

func scalar(value any) string {
	switch v := value.(type) {
	case object:
		return "{}"
	case list:
		return "[]"
	case string:
		return word(v)
	case int:
		return strconv.Itoa(v)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case bool:
		return strconv.FormatBool(v)
	case time.Duration: // as protobuf writes a duration in JSON
		return strconv.FormatFloat(v.Seconds(), 'f', -1, 64) + "s"
	default:
		panic(fmt.Sprintf("a document holds no %T", value))
	}
}

// word quotes what is not clearly a word.
func word(text string) string {
	const safe = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_/"
	plain := text != "" && strings.ContainsRune(safe, rune(text[0])) && strings.Trim(text, safe+"0123456789.-") == ""
	switch strings.ToLower(text) {
	case "y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf":
		plain = false
	}
	if plain {
		return text
	}
	return strconv.Quote(text)
}
