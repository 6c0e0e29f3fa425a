package proxy

import (
	"os"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
)

var modes = []interception.Mode{interception.ModeRedirect, interception.ModeTProxy, interception.ModeNone}

// envoyBinary returns the path of Envoy.
func envoyBinary(t *testing.T) string {
	t.Helper()
	return programIn(t, "ENVOY")
}

// programIn returns the path of a program from an environment variable. Without it the test is
// skipped; with CI=true it fails.
func programIn(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path != "" {
		return path
	}
	reason := "this test runs a proxy, and " + variable + " names no program; run it by `make test-proxy`"
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
	return ""
}
