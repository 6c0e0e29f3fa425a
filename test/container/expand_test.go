//go:build linux

package container

import "testing"

func TestExpand(t *testing.T) {
	values := map[string]string{"NAME": "web", "EMPTY": "", "NESTED": "$(NAME)"}
	for text, want := range map[string]string{
		"":                 "",
		"plain":            "plain",
		"$(NAME)":          "web",
		"a$(NAME)b$(NAME)": "awebbweb",
		"$(EMPTY)":         "",
		"$(OTHER)":         "$(OTHER)",
		"$$(NAME)":         "$(NAME)",
		"$$$(NAME)":        "$web",
		"$$":               "$",
		"$":                "$",
		"$NAME":            "$NAME",
		"$(NAME":           "$(NAME",
		"$(NESTED)":        "$(NAME)",
		"100$":             "100$",
	} {
		if got := expand(text, values); got != want {
			t.Errorf("expand(%q) = %q, want %q", text, got, want)
		}
	}
}
