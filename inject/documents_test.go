package inject_test

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/inject/config"
)

// TestConfigurationIsDocumented: docs/configuration.md has every field of the
// configuration in its table.
func TestConfigurationIsDocumented(t *testing.T) {
	first := firstColumn(t, "../docs/configuration.md")
	for _, name := range fields(reflect.TypeFor[config.Config](), "") {
		if !strings.Contains(first, "`"+name+"`") {
			t.Errorf("docs/configuration.md has no row for %s", name)
		}
	}
}

// firstColumn is the first column of all tables of a document.
func firstColumn(t *testing.T, path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var column strings.Builder
	for line := range strings.Lines(string(text)) {
		if cells, is := strings.CutPrefix(line, "|"); is {
			first, _, _ := strings.Cut(cells, "|")
			column.WriteString(first)
		}
	}
	return column.String()
}

// fields are the names of a type's fields as a file has them, with those of
// Shunt's own types below them.
func fields(of reflect.Type, prefix string) []string {
	var names []string
	for field := range of.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if field.Type.Kind() == reflect.Struct && field.Type.PkgPath() == of.PkgPath() {
			names = append(names, fields(field.Type, prefix+name+".")...)
			continue
		}
		names = append(names, prefix+name)
	}
	return names
}
