package picture

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// flags are those of shunt-init that the pages of the tests have.
const flags = "--redirect-dns --capture-all-dns -o 3306"

var modes = []string{"REDIRECT", "TPROXY"}

// TestPaths clicks through the paths that matter, in both modes and families, step
// by step, and compares each with the command line.
func TestPaths(t *testing.T) {
	page := open(t, written(t, append([]string{"--"}, strings.Fields(flags)...)...), desktop)
	compared := 0
	for i, mode := range modes {
		wanted := asked(t, append([]string{"--", "-m", mode}, strings.Fields(flags)...)...)
		page.choose("mode", fmt.Sprint(i))
		for _, family := range []int{4, 6} {
			page.choose("family", fmt.Sprint(family))
			at := 0
			for _, path := range wanted {
				if path.Family != family || path.Name == "exception" {
					continue
				}
				t.Run(fmt.Sprintf("%s/IPv%d/%s", mode, family, path.Name), func(t *testing.T) {
					page.click(fmt.Sprintf(`button[data-path="%d"]`, at))
					page.compare(t, path.Journey)
				})
				at++
				compared++
			}
		}
	}
	if compared != 40 {
		t.Errorf("%d paths, and not ten in two modes and two families", compared)
	}
}

// compare holds the page's answer to the command line's, and walks through its
// steps to the end.
func (p *tab) compare(t *testing.T, want journey) {
	t.Helper()
	if diff := cmp.Diff(want.told(), p.answer()); diff != "" {
		t.Errorf("(-command line +page):\n%s", diff)
	}
	if got, want := p.arrivals(), want.arrivals(); got != want {
		t.Errorf("the legs get to %q, wanted %q", got, want)
	}
	steps := eval[int](p, `document.querySelectorAll("#legs li").length`)
	seen := eval[[]string](p, `(() => {
		const seen = [];
		for (;;) {
			const current = document.querySelectorAll("#legs [aria-current=step]");
			const present = [...document.querySelectorAll("#diagram .present")].map((node) => node.dataset.node);
			seen.push(current.length + " " + current[0].dataset.step + " " + present.join(" "));
			if (document.getElementById("next").disabled) return seen;
			document.getElementById("next").click();
		}
	})()`)
	if len(seen) != steps {
		t.Errorf("%d steps, and Next leads through %d", steps, len(seen))
	}
	for i, step := range seen {
		if words := strings.Fields(step); len(words) != 3 || words[0] != "1" || words[1] != fmt.Sprint(i) {
			t.Errorf("step %d is shown as %q: wanted one current step, and one node that is lit", i, step)
		}
	}
	p.compareMarks(t, want)
}

// compareMarks holds the marks that are lit at the last step to the rules that the
// command line names.
func (p *tab) compareMarks(t *testing.T, want journey) {
	t.Helper()
	rules := map[string]bool{}
	for _, leg := range want.told().Legs {
		for _, step := range leg.Steps {
			for _, rule := range step.Rules {
				if !strings.HasSuffix(rule, " 0") {
					rules[rule] = true
				}
			}
		}
	}
	listed := eval[[]string](p, `[...document.querySelectorAll("#rules .met")].map((item) => (
		item.closest("[data-list]").dataset.list.replace("|", " ") + " " + item.dataset.number))`)
	for _, rule := range listed {
		if !rules[rule] {
			t.Errorf("the list of rules marks %s, which the command line does not name", rule)
		}
		delete(rules, rule)
	}
	for rule := range rules {
		t.Errorf("the list of rules does not mark %s", rule)
	}
	if drawn := eval[int](p, `document.querySelectorAll("#diagram .dot.met").length`); drawn < len(listed) {
		t.Errorf("the diagram has %d marks lit for %d rules", drawn, len(listed))
	}
}
