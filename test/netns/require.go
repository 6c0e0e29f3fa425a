package netns

import "os"

// Tester is what Require needs of a testing.TB.
type Tester interface {
	Helper()
	Fatal(args ...any)
	Skip(args ...any)
}

// Require skips a test that cannot have network namespaces here, because it
// does not run as root; in CI, where CI is true, it fails it.
func Require(t Tester) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	const reason = "this test makes network namespaces, which takes root"
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}
