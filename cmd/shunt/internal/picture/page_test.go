package picture

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

func answersOf(t *testing.T, name, args string) []trace.Answer {
	t.Helper()
	spec, _, err := interception.ParseArgs(strings.Fields(args))
	if err != nil {
		t.Fatal(err)
	}
	pod := trace.Wanted(name, spec, ruleset.Families)
	return []trace.Answer{{Pod: pod, Paths: trace.Paths(pod)}}
}

var engine = fstest.MapFS{
	"built/engine.wasm.gz": {Data: []byte("the engine")},
	"built/wasm_exec.js":   {Data: []byte("// runs it\n")},
}

// TestNoEngine writes no page without the engine, and says what to do.
func TestNoEngine(t *testing.T) {
	for missing := range engine {
		part := fstest.MapFS{}
		for name, file := range engine {
			if name != missing {
				part[name] = file
			}
		}
		var out bytes.Buffer
		err := page(&out, answersOf(t, "pod", ""), "dev", part)
		if !errors.Is(err, ErrNoEngine) || out.Len() > 0 || strings.Contains(err.Error(), "\n") {
			t.Errorf("without %s: %v, and %d bytes", missing, err, out.Len())
		}
	}
}

// TestPage holds the page to its policy: its own style and script, and nothing
// from elsewhere, whatever a pod is called.
func TestPage(t *testing.T) {
	const name = `</script><script>alert("1")</script>&<!--`
	var out bytes.Buffer
	if err := page(&out, answersOf(t, name, ""), "v<1>", engine); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if strings.Contains(text, name) || strings.Contains(text, "v<1>") {
		t.Error("a name is in the page as it is")
	}
	for _, part := range []string{"style", "script"} {
		found := regexp.MustCompile(`(?s)<`+part+`>(.*?)</`+part+`>`).FindAllStringSubmatch(text, -1)
		if len(found) != 1 {
			t.Fatalf("%d elements %s without attributes", len(found), part)
		}
		sum := sha256.Sum256([]byte(found[0][1]))
		if hash := part + "-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(text, hash) {
			t.Errorf("the policy has no %s", hash)
		}
	}
	if got := strings.Count(text, "<script"); got != 3 {
		t.Errorf("%d scripts", got)
	}
	for _, address := range regexp.MustCompile(`(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s"'<]*`).FindAllString(text, -1) {
		if address != "http://www.w3.org/2000/svg" {
			t.Errorf("the page names %s", address)
		}
	}
	for _, loads := range []string{" src=", "@import", "url(", "fetch(", "<link rel=\"stylesheet\""} {
		if strings.Contains(text, loads) {
			t.Errorf("the page has %q", loads)
		}
	}
}

// TestModes has a pod whose rules are built in both modes, the one that was asked
// for marked, and any other pod as it is.
func TestModes(t *testing.T) {
	read := trace.Pod{Name: "read", Sides: []trace.Side{{Family: ruleset.IPv4, Host: trace.InventedHost()}}}
	for _, test := range []struct {
		answers []trace.Answer
		want    string
	}{
		{answersOf(t, "pod", ""), "[REDIRECT] TPROXY"},
		{answersOf(t, "pod", "-m TPROXY"), "REDIRECT [TPROXY]"},
		{answersOf(t, "pod", "-m TPROXY --capture-udp-ports 53"), "[TPROXY]"},
		{answersOf(t, "pod", "--system ambient"), "[]"},
		{[]trace.Answer{{Pod: read}}, "[]"},
	} {
		var modes []string
		for _, mode := range documentOf(test.answers).Subjects[0].Modes {
			name := mode.Name
			if mode.Current {
				name = "[" + name + "]"
			}
			modes = append(modes, name)
		}
		if got := strings.Join(modes, " "); got != test.want {
			t.Errorf("%s: %s, wanted %s", test.answers[0].Pod.Name, got, test.want)
		}
	}
}

// TestAsked opens the page with the question of the command line.
func TestAsked(t *testing.T) {
	answers := answersOf(t, "pod", "")
	if asked := documentOf(answers).Asked; asked != nil {
		t.Errorf("nobody asked %+v", asked)
	}
	question := trace.Question{From: "proxy", To: "10.0.0.9:53", UDP: true, UID: "0"}
	connection, err := question.Connection(answers[0].Pod)
	if err != nil {
		t.Fatal(err)
	}
	answers[0].Paths = []trace.Path{{Journey: trace.Walk(answers[0].Pod, connection)}}
	if asked := documentOf(answers).Asked; asked == nil || *asked != question {
		t.Errorf("asked %+v, and not %+v", asked, question)
	}
}
