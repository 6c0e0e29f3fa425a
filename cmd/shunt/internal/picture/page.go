// Package picture makes the page of `shunt trace -o html`: one file with a diagram of
// a pod's rules and the walker itself, compiled to WebAssembly, which answers
// questions about connections in the browser. The page loads nothing.
package picture

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"text/template"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/picture/exchange"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/trace"
)

//go:embed assets
var assets embed.FS

// The engine is built before shunt, by hack/engine.sh. A fresh checkout has only the
// folder.
//
//go:embed built
var built embed.FS

// ErrNoEngine means that this shunt was built without the engine.
var ErrNoEngine = errors.New(
	"-o html: this shunt was built without the engine of the page; accepted: a shunt that make build has built, or a release")

// Page writes the page of some answers. It opens with the question that was asked,
// or with the first path. The version is that of shunt.
func Page(w io.Writer, answers []trace.Answer, version string) error {
	return page(w, answers, version, built)
}

func page(w io.Writer, answers []trace.Answer, version string, built fs.ReadFileFS) error {
	engine, err := built.ReadFile("built/engine.wasm.gz")
	if err != nil {
		return ErrNoEngine
	}
	runner, err := built.ReadFile("built/wasm_exec.js")
	if err != nil {
		return ErrNoEngine
	}
	document := documentOf(answers)
	text, err := json.Marshal(document) // which escapes <, so that the text cannot end its element
	if err != nil {
		return fmt.Errorf("write the pods into the page: %w", err)
	}
	style, script := read("page.css"), string(runner)+read("diagram.js")+read("page.js")
	err = template.Must(template.New("page").Parse(read("page.html"))).Execute(w, map[string]string{
		"Title":    escape(title(document)),
		"Version":  escape(version),
		"Policy":   policy(style, script),
		"Style":    style,
		"Script":   script,
		"Document": string(text),
		"Engine":   base64.StdEncoding.EncodeToString(engine),
	})
	if err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}

// documentOf returns what the page is told. A pod whose rules are built is there in
// both modes that pods can have.
func documentOf(answers []trace.Answer) exchange.Document {
	var document exchange.Document
	for _, answer := range answers {
		pod, paths := answer.Pod, answer.Paths
		if len(paths) == 1 && paths[0].Name == "" {
			if document.Asked == nil {
				question := trace.QuestionOf(pod, paths[0].Journey.Connection)
				document.Asked = &question
			}
			paths = trace.Paths(pod)
		}
		current := exchange.Mode{Current: true, Pod: pod, Paths: exchange.PathsOf(pod, paths)}
		subject := exchange.Subject{Name: pod.Name}
		for _, system := range []interception.System{interception.SystemRedirect, interception.SystemTProxy} {
			other, ok := pod.In(system)
			switch {
			case !ok:
			case system == pod.Built.System:
				current.Name = string(pod.Built.Mode())
				subject.Modes = append(subject.Modes, current)
			default:
				subject.Modes = append(subject.Modes, exchange.Mode{
					Name: string(other.Built.Mode()), Pod: other, Paths: exchange.PathsOf(other, trace.Paths(other)),
				})
			}
		}
		if current.Name == "" { // its rules were read, or are of neither mode
			subject.Modes = []exchange.Mode{current}
		}
		document.Subjects = append(document.Subjects, subject)
	}
	return document
}

// read returns a file of the page.
func read(name string) string {
	text, err := assets.ReadFile("assets/" + name)
	if err != nil {
		panic(err) // it is embedded
	}
	return string(text)
}

func title(d exchange.Document) string {
	if len(d.Subjects) == 1 {
		return d.Subjects[0].Name
	}
	return fmt.Sprintf("%d pods", len(d.Subjects))
}

func escape(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(text)
}

// policy allows the page its own style, its own script and WebAssembly, and no
// request at all.
func policy(style, script string) string {
	hash := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return strings.Join([]string{
		"default-src 'none'",
		"style-src " + hash(style),
		"script-src " + hash(script) + " 'wasm-unsafe-eval'",
		"img-src data:",
		"base-uri 'none'",
		"form-action 'none'",
	}, "; ")
}
