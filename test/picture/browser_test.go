package picture

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// shunt is the program under test, and browser the context of the one browser.
var (
	shunt   string
	browser context.Context
)

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	chromium := os.Getenv("CHROMIUM")
	if chromium == "" || os.Getenv("AXE") == "" {
		os.Stderr.WriteString("CHROMIUM and AXE are not set; run hack/suites.sh picture\n")
		return 1
	}
	folder, err := os.MkdirTemp("", "picture")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(folder) }() // a browser that ends may still write there
	shunt = filepath.Join(folder, "shunt")
	build := exec.CommandContext(context.Background(), "go", "build", "-buildvcs=false", "-o", shunt, "./cmd/shunt")
	build.Dir, build.Env = filepath.Join("..", ".."), append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		os.Stderr.Write(out)
		return 1
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium),
		chromedp.NoSandbox, // which root has to do without
		chromedp.UserDataDir(filepath.Join(folder, "profile")))
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	defer stop()
	var cancel context.CancelFunc
	browser, cancel = chromedp.NewContext(allocator)
	defer cancel()
	if err := chromedp.Do(browser, chromedp.Navigate("about:blank")); err != nil {
		os.Stderr.WriteString("start the browser: " + err.Error() + "\n")
		return 1
	}
	return m.Run()
}

// run runs shunt and returns what it prints.
func run(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), shunt, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("shunt %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}

// written has shunt write a page and returns the address of the file.
func written(t *testing.T, args ...string) string {
	t.Helper()
	page := run(t, append([]string{"trace", "-o", "html"}, args...)...)
	name := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(name, page, 0o600); err != nil {
		t.Fatal(err)
	}
	return "file://" + name
}

// look is how a page is looked at. The zero value is a desktop in light colours.
type look struct {
	width, height int64
	dark, motion  bool
}

var (
	desktop = look{width: 1440, height: 900}
	phone   = look{width: 390, height: 844}
)

// tab is a page that is open.
type tab struct {
	context.Context
	t *testing.T

	lock     sync.Mutex
	requests []string // all addresses that the page asked for
}

// open opens a page in a tab of its own and waits until it can answer. An error in
// its script fails the test.
func open(t *testing.T, address string, at look) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	opened := &tab{Context: ctx, t: t}
	opened.do(chromedp.Navigate("about:blank"))
	if err := chromedp.Listen(ctx, opened.listen); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	opened.lookAt(at)
	opened.do(chromedp.Navigate(address), chromedp.WaitVisible(chromedp.CSS(`#main[aria-busy=false]`)))
	return opened
}

// lookAt changes how the page is looked at.
func (p *tab) lookAt(at look) {
	p.t.Helper()
	scheme, motion := "light", "reduce"
	if at.dark {
		scheme = "dark"
	}
	if at.motion {
		motion = "no-preference"
	}
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: motion},
	}}
	if _, err := chromedp.Call(p, emulation.SetEmulatedMedia, media); err != nil {
		p.t.Fatal(err)
	}
	p.do(chromedp.EmulateViewport(at.width, at.height))
	p.frames()
}

// frames waits until the browser has drawn what it was told.
func (p *tab) frames() {
	p.t.Helper()
	eval[bool](p, "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
}

func (p *tab) listen(event any) {
	switch event := event.(type) {
	case *network.EventRequestWillBeSent:
		p.lock.Lock()
		defer p.lock.Unlock()
		p.requests = append(p.requests, event.Request.URL)
	case *runtime.EventExceptionThrown:
		p.t.Errorf("an error in the page: %s %s", event.ExceptionDetails.Text, event.ExceptionDetails.Exception.Description)
	}
}

func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p, steps...); err != nil {
		p.t.Fatal(err)
	}
}

// click clicks what a selector finds, as a mouse does.
func (p *tab) click(selector string) {
	p.t.Helper()
	p.do(chromedp.Click(chromedp.CSS(selector)))
}

// choose clicks a radio button by its name and value.
func (p *tab) choose(name, value string) {
	p.t.Helper()
	p.click(`input[name="` + name + `"][value="` + value + `"]`)
}

// eval returns the value of an expression in the page, or what it promises.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	value, err := chromedp.Run(p, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%v: %s", err, expression)
	}
	return value
}

// text returns the text of what a selector finds.
func (p *tab) text(selector string) string {
	p.t.Helper()
	return eval[string](p, `document.querySelector('`+selector+`').textContent`)
}
