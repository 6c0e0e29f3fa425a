package bench_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/test/bench"
)

func TestSection(t *testing.T) {
	const document = "one\n<!-- measured: a -->\nold\n<!-- /measured -->\ntwo\n<!-- measured: b -->\n\n<!-- /measured -->\n"
	const want = "one\n<!-- measured: a -->\n\n| new |\n\n<!-- /measured -->\ntwo\n<!-- measured: b -->\n\n<!-- /measured -->\n"
	s := bench.Section{Name: "a", Text: "| new |\n"}
	got, err := s.Fill(document)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("filled (-want +got):\n%s", diff)
	}
	for range 2 { // filling again changes nothing
		if got, err = s.Fill(got); err != nil || got != want {
			t.Errorf("filled again: %v\n%s", err, got)
		}
	}
	if text, err := s.In(got); err != nil || text != s.Text {
		t.Errorf("read back %q, %v", text, err)
	}
	for _, spoilt := range []string{"", "<!-- measured: a -->\n", "<!-- measured: b -->\n<!-- /measured -->"} {
		if got, err := s.Fill(spoilt); err == nil {
			t.Errorf("%q was filled: %q", spoilt, got)
		}
	}
}
