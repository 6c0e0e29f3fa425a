//go:build linux

package container

import "strings"

// expand replaces $(NAME) by its value and $$ by $, as kubelet does in a
// container's command and arguments. It keeps a reference to an unknown variable,
// and a lone dollar sign.
func expand(text string, values map[string]string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "$")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		name, rest, closed := strings.Cut(strings.TrimPrefix(after, "("), ")")
		switch {
		case strings.HasPrefix(after, "$"):
			b.WriteByte('$')
			text = after[1:]
		case strings.HasPrefix(after, "(") && closed:
			if value, ok := values[name]; ok {
				b.WriteString(value)
			} else {
				b.WriteString("$(" + name + ")")
			}
			text = rest
		default:
			b.WriteByte('$')
			text = after
		}
	}
}
