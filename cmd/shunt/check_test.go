package main

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/check"
)

func TestPrintFindings(t *testing.T) {
	findings := []check.Finding{
		{Level: check.OK, Kind: check.Registration, Object: "MutatingWebhookConfiguration/shunt", Message: "revision default"},
		{Level: check.Fail, Kind: check.PodNotInjected, Object: "Pod/shop/echo", Message: "it has no proxy"},
	}
	for output, want := range map[string]string{
		outputTable: "RESULT  CHECK           OBJECT                              FOUND\n" +
			"OK      Registration    MutatingWebhookConfiguration/shunt  revision default\n" +
			"FAIL    PodNotInjected  Pod/shop/echo                       it has no proxy\n",
		outputJSON: `{
  "failed": 1,
  "findings": [
    {
      "level": "OK",
      "check": "Registration",
      "object": "MutatingWebhookConfiguration/shunt",
      "message": "revision default"
    },
    {
      "level": "FAIL",
      "check": "PodNotInjected",
      "object": "Pod/shop/echo",
      "message": "it has no proxy"
    }
  ]
}
`,
	} {
		var got bytes.Buffer
		if err := (checker{output: output}).print(&got, findings); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", output, diff)
		}
	}
}
