package netns

import (
	"errors"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// Tester is what Require needs of a testing.TB.
type Tester interface {
	Helper()
	Fatal(args ...any)
	Skip(args ...any)
}

// Require skips a test where it cannot have network namespaces, or one of the
// named commands is not on PATH; in CI, where CI is true, it fails it.
func Require(t Tester, commands ...string) {
	t.Helper()
	reason := lacking(commands)
	switch {
	case reason == "":
	case os.Getenv("CI") == "true":
		t.Fatal(reason)
	default:
		t.Skip(reason)
	}
}

// lacking says what is missing here; nothing when all is there.
func lacking(commands []string) string {
	ns, err := New("probe")
	switch {
	case errors.Is(err, unix.EPERM):
		return "this test makes network namespaces, which takes root with CAP_SYS_ADMIN: " + err.Error()
	case err != nil:
		return "this test makes network namespaces, which fails here: " + err.Error()
	}
	_ = ns.Close()
	var missing []string
	for _, name := range commands {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return "this test runs " + strings.Join(missing, " and ") + ", which is not on PATH; hack/deps.sh installs it"
}
