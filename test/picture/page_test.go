package picture

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/google/go-cmp/cmp"
)

// TestForm asks a question of its own, gets it wrong, and corrects it.
func TestForm(t *testing.T) {
	page := open(t, written(t, "--", "-m", "TPROXY"), desktop)
	page.choose("from", "proxy")
	page.click("#more")
	page.ask("192.0.2.77:443", map[string]string{"uid": "0", "gid": "0"})
	want := asked(t, "--from", "proxy", "--to", "192.0.2.77:443", "--uid", "0", "--gid", "0", "--", "-m", "TPROXY")
	page.compare(t, want[0].Journey)
	if got, want := page.text("#command"), "--from proxy --to 192.0.2.77:443 --uid 0 --gid 0"; got != want {
		t.Errorf("the flags are %q, wanted %q", got, want)
	}

	before := page.answer()
	page.ask("192.0.2.77", map[string]string{"uid": "root"})
	const problem = `to: invalid value "192.0.2.77"; accepted: ADDRESS:PORT, [ADDRESS]:PORT` + "\n" +
		`uid: invalid value "root"; accepted: 0 to 4294967295`
	if got := page.text("#problem"); got != problem {
		t.Errorf("the problem is %q, wanted %q", got, problem)
	}
	if got, want := page.invalid(), "to uid"; got != want {
		t.Errorf("%q are marked as invalid, wanted %q", got, want)
	}
	if diff := cmp.Diff(before, page.answer()); diff != "" {
		t.Errorf("a wrong question changes the answer (-before +after):\n%s", diff)
	}

	page.ask("[2001:db8::7]:53", map[string]string{"uid": "", "gid": ""})
	page.choose("protocol", "udp")
	page.choose("from", "app")
	if got := page.text("#problem") + page.invalid(); got != "" {
		t.Errorf("a right question has the problem %q", got)
	}
	page.compare(t, asked(t, "--from", "app", "--to", "[2001:db8::7]:53", "--udp", "--", "-m", "TPROXY")[0].Journey)
	if got := eval[string](page, `document.querySelector("[name=family]:checked").value`); got != "6" {
		t.Errorf("the switch says IPv%s", got)
	}
}

// ask types a question and presses Enter.
func (p *tab) ask(to string, more map[string]string) {
	p.t.Helper()
	for name, value := range more {
		p.write(name, value)
	}
	p.write("to", to)
	p.do(chromedp.KeyEvent(kb.Enter))
}

// write puts a value into a field, instead of what it has.
func (p *tab) write(name, value string) {
	p.t.Helper()
	p.do(chromedp.Focus(chromedp.CSS("#" + name)))
	eval[chromedp.Void](p, "document.activeElement.select()")
	if value == "" {
		value = kb.Delete
	}
	p.do(chromedp.KeyEvent(value))
}

func (p *tab) invalid() string {
	return strings.Join(eval[[]string](p, `[...document.querySelectorAll("[aria-invalid]")].map((input) => input.name)`), " ")
}

// TestSwitch asks of a question of one's own in the other mode and family: it stays
// the same question.
func TestSwitch(t *testing.T) {
	page := open(t, written(t, "--from", "10.0.0.9", "--to", "10.0.0.1:7777"), desktop)
	page.choose("mode", "1")
	page.compare(t, asked(t, "--from", "10.0.0.9", "--to", "10.0.0.1:7777", "--", "-m", "TPROXY")[0].Journey)
	page.choose("family", "6")
	page.compare(t, asked(t, "--from", "fd00::9", "--to", "[fd00::1]:7777", "--", "-m", "TPROXY")[0].Journey)
	page.choose("mode", "0")
	page.choose("family", "4")
	page.compare(t, asked(t, "--from", "10.0.0.9", "--to", "10.0.0.1:7777")[0].Journey)
}

// TestExceptions chooses each exception that the rules make.
func TestExceptions(t *testing.T) {
	page := open(t, written(t, "--", "-o", "3306", "-d", "9090", "-x", "10.9.0.0/16"), desktop)
	usual := eval[int](page, `document.querySelectorAll("[data-path]").length`)
	compared := 0
	for _, path := range asked(t, "--", "-o", "3306", "-d", "9090", "-x", "10.9.0.0/16") {
		if path.Family != 4 || path.Name != "exception" {
			continue
		}
		eval[bool](page, fmt.Sprintf(`(() => {
			const list = document.getElementById("exception");
			list.value = "%d";
			return list.dispatchEvent(new Event("change", { bubbles: true }));
		})()`, usual+compared))
		page.compare(t, path.Journey)
		compared++
	}
	if compared < 3 {
		t.Errorf("%d exceptions", compared)
	}
}

// TestSubjects has two pods in one page.
func TestSubjects(t *testing.T) {
	folder := filepath.Join("..", "..", "config", "samples")
	files := []string{"-f", filepath.Join(folder, "redirect.yaml"), "-f", filepath.Join(folder, "tproxy.yaml")}
	page := open(t, written(t, files...), desktop)
	for i, want := range []string{"REDIRECT", "TPROXY"} {
		eval[bool](page, fmt.Sprintf(`(() => {
			const list = document.getElementById("subject");
			list.value = "%d";
			return list.dispatchEvent(new Event("change", { bubbles: true }));
		})()`, i))
		if got := page.text(`input[name="mode"]:checked + span`); got != want {
			t.Errorf("pod %d is shown with %s, wanted %s", i, got, want)
		}
		if sees := page.answer().Sees; (sees == "127.0.0.6") != (want == "REDIRECT") {
			t.Errorf("with %s the app sees %s", want, sees)
		}
	}
}

// TestLink opens a link that carries a question: the page is as it was when the
// link was made.
func TestLink(t *testing.T) {
	address := written(t, "--", strings.Fields(flags)[0])
	page := open(t, address, desktop)
	page.choose("mode", "1")
	page.click("#more")
	page.choose("from", "proxy")
	page.choose("protocol", "udp")
	page.ask("[2001:db8::7]:53", map[string]string{"uid": "7", "gid": "8", "mark": "0x9"})
	for range 3 {
		page.click("#next")
	}
	link := eval[string](page, "location.hash")
	words, err := url.ParseQuery(strings.TrimPrefix(link, "#"))
	if err != nil {
		t.Fatal(err)
	}
	want := url.Values{
		"mode": {"TPROXY"}, "from": {"proxy"}, "to": {"[2001:db8::7]:53"}, "udp": {"1"}, "uid": {"7"}, "gid": {"8"}, "mark": {"0x9"},
		"step": {"4"},
	}
	if diff := cmp.Diff(want, words); diff != "" {
		t.Errorf("the link carries (-want +got):\n%s", diff)
	}
	const state = `[...new FormData(document.getElementById("question"))].filter(([name]) => name !== "address")
		.map((field) => field.join("=")).concat(
		document.querySelector("[name=mode]:checked").value, document.querySelector("[name=family]:checked").value,
		document.getElementById("count").textContent).join(" ")`
	again := open(t, address+link, desktop)
	if got, want := eval[string](again, state), eval[string](page, state); got != want {
		t.Errorf("the link leads to\n%s\nand was made at\n%s", got, want)
	}
	if diff := cmp.Diff(page.answer(), again.answer()); diff != "" {
		t.Errorf("the answers differ (-before +after):\n%s", diff)
	}
	for _, wrong := range []string{
		"#step=99&to=10.0.0.1:80&from=app", "#pod=7&mode=none", "#to=nowhere", "#%", "#step=-3&to=[::1]:80",
		"#branch=if.x&to=10.0.0.1:80&from=app",
	} {
		again.follow(wrong) // an error in the page fails the test
	}
	if got := again.text("#problem"); got != "" {
		t.Errorf("the last link has a right question, and the problem %q", got)
	}
}

// follow follows a link within the page.
func (p *tab) follow(link string) {
	p.t.Helper()
	eval[bool](p, `new Promise((done) => {
		addEventListener("hashchange", () => done(true), { once: true });
		location.hash = "`+link+`";
	})`)
	p.frames()
}

// dump is what iptables-save -c prints of rules with a match that nobody knows.
const dump = `*nat
:PREROUTING ACCEPT [5:300]
:OUTPUT ACCEPT [3:180]
:MESH - [0:0]
[41:2460] -A PREROUTING -p tcp -j MESH
[1:60] -A MESH -p tcp -m set --match-set clients src -j RETURN
[1040:2400] -A MESH -p tcp -j REDIRECT --to-ports 15006
[4:240] -A OUTPUT -m owner --uid-owner 1337 -j RETURN
COMMIT
`

// TestFork shows both ways where it is not known which one a connection takes, and
// what rules have counted.
func TestFork(t *testing.T) {
	name := filepath.Join(t.TempDir(), "dump")
	if err := os.WriteFile(name, []byte(dump), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--dump", name, "--from", "10.0.0.9", "--to", "10.0.0.1:8080"}
	address := written(t, args...)
	page := open(t, address, desktop)
	want := asked(t, args...)[0].Journey
	if want.Fork == nil {
		t.Fatal("the command line knows the way")
	}
	unknown := page.answer()
	if diff := cmp.Diff(want.told(), unknown); diff != "" {
		t.Errorf("(-command line +page):\n%s", diff)
	}
	for i, branch := range []journey{want.Fork.If, want.Fork.Unless} {
		page.click(fmt.Sprintf("#forks button:nth-child(%d)", i+1))
		page.compare(t, branch)
		again := open(t, address+eval[string](page, "location.hash"), desktop)
		if diff := cmp.Diff(page.answer(), again.answer()); diff != "" {
			t.Errorf("the link leads to another branch (-before +after):\n%s", diff)
		}
		page.click("#forks button:first-child") // back
		if diff := cmp.Diff(unknown, page.answer()); diff != "" {
			t.Errorf("back from a branch (-before +after):\n%s", diff)
		}
	}
	for _, count := range []string{"41 packets", "1 packet", "1,040 packets", "4 packets"} {
		if !strings.Contains(page.text("#rules"), count) {
			t.Errorf("the list of rules does not say %s", count)
		}
	}
	if got := page.text("#legs .counted"); got != "41 packets so far" {
		t.Errorf("the first rule that is met says %q", got)
	}
}

// TestNoRequest lets the page work: nothing but the file itself is asked for. Then
// it has the page try to load something, which its policy forbids.
func TestNoRequest(t *testing.T) {
	page := open(t, written(t), desktop)
	page.click(`button[data-path="2"]`)
	page.click("#next")
	page.lock.Lock()
	asked := page.requests
	page.lock.Unlock()
	if len(asked) == 0 || !strings.HasPrefix(asked[0], "file:///") {
		t.Errorf("the log of requests begins with %q, and not with the page", asked)
	}
	for _, address := range asked[1:] {
		if !strings.HasPrefix(address, "data:") {
			t.Errorf("the page asked for %s", address)
		}
	}
	forbidden := eval[[]string](page, `new Promise((done) => {
		const forbidden = [];
		addEventListener("securitypolicyviolation", ({ effectiveDirective }) => {
			forbidden.push(effectiveDirective);
			if (forbidden.length === 4) done(forbidden.sort());
		});
		fetch("https://host.invalid/").catch(() => {});
		new Image().src = "https://host.invalid/x.png";
		import("https://host.invalid/x.js").catch(() => {});
		const style = document.createElement("style");
		style.textContent = "* { color: red }";
		document.head.append(style);
	})`)
	if diff := cmp.Diff([]string{"connect-src", "img-src", "script-src-elem", "style-src-elem"}, forbidden); diff != "" {
		t.Errorf("the policy of the page forbids (-want +got):\n%s", diff)
	}
}

// TestPhone holds the page to the width of a phone: nothing is wider, no button is
// too small for a finger, no text too small to read.
func TestPhone(t *testing.T) {
	page := open(t, written(t, append([]string{"--"}, strings.Fields(flags)...)...), phone)
	for _, width := range []int64{320, 390, 768} {
		page.lookAt(look{width: width, height: 844})
		for mode := range modes {
			page.choose("mode", fmt.Sprint(mode))
			for _, family := range []string{"4", "6"} {
				page.choose("family", family)
				if wide := eval[int](page, "document.documentElement.scrollWidth - innerWidth"); wide > 0 {
					t.Errorf("%d pixels wide, %s, IPv%s: the page is %d pixels wider", width, modes[mode], family, wide)
				}
			}
		}
		small := eval[[]string](page, `[...document.querySelectorAll("button, select, input, summary")].filter((one) => one.offsetParent)
			.filter((one) => {
				const { width, height } = (one.closest("label") ?? one).getBoundingClientRect();
				return width < 24 || height < 24;
			}).map((one) => one.outerHTML)`)
		for _, one := range small {
			t.Errorf("%d pixels wide: too small for a finger: %s", width, one)
		}
		tiny := eval[[]string](page, `[...document.querySelectorAll("#diagram text, #diagram tspan, #legs *, #rules *")]
			.filter((one) => parseFloat(getComputedStyle(one).fontSize) < 10).map((one) => one.textContent)`)
		if len(tiny) > 0 {
			t.Errorf("%d pixels wide: texts smaller than 10 pixels: %q", width, tiny)
		}
	}
}

// TestOverflow holds the texts of the diagram to their boxes.
func TestOverflow(t *testing.T) {
	page := open(t, written(t, append([]string{"--", "-m", "TPROXY"}, strings.Fields(flags)...)...), desktop)
	for _, width := range []int64{320, 390, 768, 1440} {
		page.lookAt(look{width: width, height: 900})
		out := eval[[]string](page, `[...document.querySelectorAll("#diagram .node")].flatMap((node) => {
			const box = node.querySelector(".box").getBoundingClientRect();
			return [...node.querySelectorAll("text, .dot, .bar")].filter((one) => {
				const { left, right, top, bottom } = one.getBoundingClientRect();
				return left < box.left || right > box.right || top < box.top - 1 || bottom > box.bottom + 1;
			}).map((one) => node.dataset.node + ": " + (one.textContent || one.className.baseVal));
		})`)
		if len(out) > 0 {
			t.Errorf("%d pixels wide: outside of its box: %q", width, out)
		}
	}
}

// TestMotion plays a journey. Where the reader wants less motion nothing runs.
func TestMotion(t *testing.T) {
	for _, motion := range []bool{true, false} {
		page := open(t, written(t, "--from", "app", "--to", "127.0.0.1:80"), look{width: 1440, height: 900, motion: motion})
		page.click("#play")
		if got := eval[string](page, `document.getElementById("play").getAttribute("aria-label")`); got != "Pause" {
			t.Errorf("the button that plays is called %s while it plays", got)
		}
		if motion {
			page.do(chromedp.WaitReady(chromedp.CSS("#diagram .runner")))
		}
		page.do(chromedp.WaitReady(chromedp.CSS(`#legs [data-step="2"][aria-current]`)))
		if !motion && eval[int](page, `document.querySelectorAll("#diagram .runner").length`) > 0 {
			t.Error("something runs though the reader wants less motion")
		}
		page.click("#play")
		if got := eval[string](page, `document.getElementById("play").getAttribute("aria-label")`); got != "Play" {
			t.Errorf("the button that plays is called %s while it rests", got)
		}
	}
}

// TestKeyboard uses the page with the keys alone, and sees at each stop where the
// focus is.
func TestKeyboard(t *testing.T) {
	page := open(t, written(t), desktop)
	page.press(`document.activeElement.dataset?.path === "2"`, kb.Tab)
	page.do(chromedp.KeyEvent(kb.Enter))
	wanted := asked(t, "--from", "app", "--to", eval[string](page, `document.getElementById("to").value`))[0].Journey
	if diff := cmp.Diff(wanted.told(), page.answer()); diff != "" {
		t.Errorf("Enter on a path (-command line +page):\n%s", diff)
	}
	page.press(`document.getElementById("next").disabled`, kb.ArrowRight)
	if got, want := page.text("#live"), page.text("#count"); !strings.HasPrefix(got, want+": ") {
		t.Errorf("a screen reader hears %q at %s", got, want)
	}
	page.do(chromedp.KeyEvent(kb.ArrowLeft))
	steps := eval[int](page, `document.querySelectorAll("#legs li").length`)
	if got, want := page.text("#count"), fmt.Sprintf("Step %d of %d", steps-1, steps); got != want {
		t.Errorf("the arrow back leads to %s, wanted %s", got, want)
	}

	page.press(`document.activeElement.name === "from"`, kb.Tab)
	page.do(chromedp.KeyEvent(kb.ArrowRight)) // from app to proxy
	if got := eval[string](page, `document.querySelector("[name=from]:checked").value`); got != "proxy" {
		t.Errorf("the arrow chooses %s", got)
	}
	page.press(`document.activeElement.id === "more"`, kb.Tab)
	page.do(chromedp.KeyEvent(" "))
	page.press(`document.activeElement.id === "uid"`, kb.Tab)
	page.do(chromedp.KeyEvent("0" + kb.Enter))
	if got, want := page.text("#command"), "--uid 0"; !strings.HasSuffix(got, want) {
		t.Errorf("the question is %s, wanted %s at its end", got, want)
	}
	page.press(`document.activeElement.closest("#legs") && document.activeElement.parentElement.dataset.step === "3"`, kb.Tab)
	page.do(chromedp.KeyEvent(kb.Enter))
	if got := page.text("#count"); !strings.HasPrefix(got, "Step 4 of") {
		t.Errorf("Enter on the fourth step leads to %s", got)
	}
}

// press presses a key until a condition holds.
func (p *tab) press(until, key string) {
	p.t.Helper()
	for range 200 {
		p.do(chromedp.KeyEvent(key))
		focus := eval[string](p, `(() => {
			const { activeElement: at } = document;
			const shown = at.closest(".segments") ? at.nextElementSibling : at;
			if (at === document.body || parseFloat(getComputedStyle(shown).outlineWidth) > 0) return "";
			return at.outerHTML;
		})()`)
		if focus != "" && key == kb.Tab {
			p.t.Errorf("the focus is not to be seen on %s", focus)
		}
		if eval[bool](p, "Boolean("+until+")") {
			return
		}
	}
	p.t.Fatalf("200 times the key %q, and not %s", key, until)
}

// TestAccessible has axe-core look at the page as readers meet it.
func TestAccessible(t *testing.T) {
	axe, err := os.ReadFile(os.Getenv("AXE"))
	if err != nil {
		t.Fatal(err)
	}
	page := open(t, written(t, append([]string{"--"}, strings.Fields(flags)...)...), desktop)
	eval[chromedp.Void](page, string(axe))
	for _, dark := range []bool{false, true} {
		for _, at := range []look{desktop, phone} {
			at.dark = dark
			page.lookAt(at)
			questions := map[string]string{"proxied": "#from=10.0.0.9&to=10.0.0.1:8080&step=9"}
			if at.width == desktop.width {
				questions["blocked"] = "#from=10.0.0.9&to=127.0.0.1:80&step=2"
				questions["wrong"] = "#from=app&to=10.0.0.9:80&uid=root"
				questions["answers"] = "#mode=TPROXY&from=fd00::9&to=[fd00::1]:8080&step=17"
			}
			for name, question := range questions {
				t.Run(fmt.Sprintf("%s/%d/dark=%v", name, at.width, dark), func(t *testing.T) {
					page.follow(question)
					page.accessible(t)
				})
			}
		}
	}
}

// accessible fails for what axe-core calls serious or critical, and names the rest.
func (p *tab) accessible(t *testing.T) {
	t.Helper()
	text := eval[string](p, `axe.run({ resultTypes: ["violations"] }).then(({ violations }) => JSON.stringify(violations))`)
	var violations []struct {
		ID, Impact, Help string
		Nodes            []struct{ HTML, FailureSummary string }
	}
	if err := json.Unmarshal([]byte(text), &violations); err != nil {
		t.Fatal(err)
	}
	for _, v := range violations {
		report := t.Logf
		if v.Impact == "serious" || v.Impact == "critical" {
			report = t.Errorf
		}
		for _, node := range v.Nodes {
			report("%s (%s): %s\n%s\n%s", v.ID, v.Impact, v.Help, node.HTML, node.FailureSummary)
		}
	}
}

// TestLong draws a pod with a chain of a thousand rules, and finds the one that is
// met.
func TestLong(t *testing.T) {
	var prefixes []string
	for i := range 1000 {
		prefixes = append(prefixes, fmt.Sprintf("10.%d.%d.0/24", 100+i/250, i%250))
	}
	args := []string{"--", "-x", strings.Join(prefixes, ",")}
	page := open(t, written(t, args...), desktop)
	page.choose("from", "app")
	page.ask("10.102.7.9:80", nil)
	want := asked(t, append([]string{"--from", "app", "--to", "10.102.7.9:80"}, args...)...)[0].Journey
	if diff := cmp.Diff(want.told(), page.answer()); diff != "" {
		t.Errorf("(-command line +page):\n%s", diff)
	}
	if bars := eval[int](page, `document.querySelectorAll("#diagram .bar").length`); bars != 1 {
		t.Errorf("%d chains are drawn as a bar, wanted 1", bars)
	}
	eval[chromedp.Void](page, "document.activeElement.blur()") // the arrows are the field's own in it
	page.press(`document.getElementById("next").disabled`, kb.ArrowRight)
}

// TestSizes says how large the page is.
func TestSizes(t *testing.T) {
	engine, err := os.Stat(filepath.Join("..", "..", "cmd", "shunt", "internal", "picture", "built", "engine.wasm.gz"))
	if err != nil {
		t.Fatal(err)
	}
	page := run(t, "trace", "-o", "html")
	t.Logf("the engine has %d bytes, and a page %d", engine.Size(), len(page))
	if len(page) > 3<<20 {
		t.Errorf("a page has %d bytes", len(page))
	}
}
