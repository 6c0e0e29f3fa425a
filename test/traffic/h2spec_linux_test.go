package traffic

import (
	"context"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Ports of nghttpd.
const (
	http2Port  uint16 = 8081
	http2sPort uint16 = 8443
)

// h2specTrial runs h2spec, which tests servers for conformance with HTTP/2, on nghttpd. Its
// verdicts, case by case, are nghttpd's. One of its 145 cases waits for its timeout, so it does not
// run on every way.
func h2specTrial() trial {
	return trial{
		name: "h2spec over h2c and TLS",
		ways: []direction{{inbound: true}, {ipv6: true}},
		prepare: func(t *testing.T, w *way) {
			pages := app.folder(t, "pages")
			// The cases about flow control need some data to be left.
			file(t, filepath.Join(pages, "index.html"), strings.Repeat("x", 20_000))
			app.daemon(t, w.serverHost(), http2Port, "nghttpd", "--no-tls", "--htdocs="+pages, fmt.Sprint(http2Port))
			app.daemon(t, w.serverHost(), http2sPort, "nghttpd", "--htdocs="+pages, fmt.Sprint(http2sPort),
				key(t, "server.key"), key(t, "server.pem"))
		},
		talk: func(t *testing.T, w *way) []string {
			bin := program(t, "H2SPEC")
			tls := make(chan []string, 1)
			go func() { tls <- w.h2spec(t, bin, http2sPort, "--tls", "--insecure") }()
			return slices.Concat(w.h2spec(t, bin, http2Port), <-tls)
		},
	}
}

// h2specCases is the number of h2spec's cases. With fewer, h2spec has given up.
const h2specCases = 145

// h2spec returns the verdict of every case.
func (w *way) h2spec(t *testing.T, bin string, port uint16, more ...string) []string {
	const patience = "5" // seconds, for what a case expects
	report := filepath.Join(app.folder(t, "h2spec"), "report.xml")
	ctx, cancel := context.WithTimeout(t.Context(), 2*answerTime)
	defer cancel()
	host := w.address().String()
	if w.ipv6 {
		host = "[" + host + "]"
	}
	args := append([]string{
		bin, "--host", host, "--port", fmt.Sprint(port), "--timeout", patience, "--junit-report", report,
	}, more...)
	out, ended := app.command(ctx, w.clientHost(), args...).CombinedOutput()
	var suites struct {
		Suites []struct {
			Cases []struct {
				Package string    `xml:"package,attr"`
				Name    string    `xml:"classname,attr"`
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
				Skipped *struct{} `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	text, err := os.ReadFile(report)
	if err == nil {
		err = xml.Unmarshal(text, &suites)
	}
	if err != nil {
		t.Errorf("h2spec's report: %v; it ended with %v and says:\n%.2000s", err, ended, out)
		return nil
	}
	var verdicts []string
	failed := 0
	for _, s := range suites.Suites {
		for _, c := range s.Cases {
			verdict := "passed"
			switch {
			case c.Failure != nil:
				verdict = "failed"
				failed++
			case c.Error != nil:
				verdict = "error"
				failed++
			case c.Skipped != nil:
				verdict = "skipped"
			}
			verdicts = append(verdicts, fmt.Sprintf("port %d: %s %s: %s", port, c.Package, c.Name, verdict))
		}
	}
	if len(verdicts) < h2specCases || failed > h2specCases/10 {
		t.Errorf("h2spec made %d cases, of which %d failed; it says:\n%.2000s", len(verdicts), failed, out)
	}
	return verdicts
}
