package envtest_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// What this suite starts ends with it, also when it is killed: every process
// asks the kernel to be killed with the one that started it (PR_SET_PDEATHSIG),
// and a shell outlives them all to remove their files.
//
// The kernel means the thread that started it. Threads of Go's pool end only
// with a goroutine that is locked to one, and this suite has none.

// TestMain ends this process with go test, and lets the test binary become a
// program of the control plane.
func TestMain(m *testing.M) {
	switch name := filepath.Base(os.Args[0]); name {
	case "etcd", "kube-apiserver":
		fmt.Fprintf(os.Stderr, "starting %s: %v\n", name, become(filepath.Join(os.Getenv(assetsVariable), name)))
		os.Exit(1)
	}
	if err := endWithParent(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func endWithParent() error {
	return os.NewSyscallError("prctl PR_SET_PDEATHSIG", unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0))
}

// parentVariable has the process id of the suite that a program belongs to.
const parentVariable = "SHUNT_ENVTEST_PARENT"

// become turns this process into a program that ends with its parent. It
// returns only with an error. envtest, which is the parent, has no other place
// to ask for that.
func become(program string) error {
	runtime.LockOSThread() // the setting is this thread's, which becomes the program
	if err := endWithParent(); err != nil {
		return err
	}
	if parent := fmt.Sprint(os.Getppid()); parent != os.Getenv(parentVariable) {
		return errors.New("its parent has ended already")
	}
	return syscall.Exec(program, os.Args, os.Environ())
}

// endsWithThisProcess has envtest start etcd and the API server through
// become, by links to this test binary in a folder.
func endsWithThisProcess(environment *envtest.Environment, dir string) {
	GinkgoHelper()
	GinkgoT().Setenv(parentVariable, fmt.Sprint(os.Getpid()))
	self, err := os.Executable()
	Expect(err).NotTo(HaveOccurred())
	link := func(name string) string {
		path := filepath.Join(dir, name)
		Expect(os.Symlink(self, path)).To(Succeed())
		return path
	}
	environment.ControlPlane.Etcd = &envtest.Etcd{Path: link("etcd")}
	environment.ControlPlane.GetAPIServer().Path = link("kube-apiserver")
}

// childCommand is exec.CommandContext for a program that ends with this process.
func childCommand(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// keepFolder makes a folder, says where it is, and removes it when its input
// ends. Where no line came, what was killed may be about to write yet: then
// the folder has to stay away for a second.
const keepFolder = `trap "" PIPE
dir=$(mktemp -d) || exit
echo "$dir"
read -r word
for try in 1 2 3 4 5 6 7 8 9 10; do
  rm -rf "$dir" && { [ "$word" = done ] || sleep 1; } && [ ! -e "$dir" ] && exit
done`

// temporaryFolder returns a folder that is removed at the end of the suite,
// and when this process ends before, however that comes.
func temporaryFolder() string {
	GinkgoHelper()
	keeper := exec.Command("/bin/sh", "-c", keepFolder)
	keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C reaches a process group
	input, err := keeper.StdinPipe()                        // the kernel closes this end with this process
	Expect(err).NotTo(HaveOccurred())
	output, err := keeper.StdoutPipe()
	Expect(err).NotTo(HaveOccurred())
	Expect(keeper.Start()).To(Succeed())
	DeferCleanup(func() {
		_, err := fmt.Fprintln(input, "done")
		Expect(err).NotTo(HaveOccurred())
		Expect(keeper.Wait()).To(Succeed())
	})
	dir, err := bufio.NewReader(output).ReadString('\n')
	Expect(err).NotTo(HaveOccurred())
	return strings.TrimSpace(dir)
}

// cleanupPatience is for a suite that never gets there, not for a busy machine.
const cleanupPatience = 5 * time.Minute

// TestKilledSuiteLeavesNothing kills runs of this suite at several points, all
// at once, and looks for what they started and wrote.
func TestKilledSuiteLeavesNothing(t *testing.T) {
	requireAssets(t)
	for _, tt := range []struct {
		when   string
		runs   string // the program whose start is waited for
		signal os.Signal
	}{
		{"etcd starts", "etcd", syscall.SIGKILL},
		{"the API server starts", "kube-apiserver", syscall.SIGKILL},
		{"a spec runs", "go", syscall.SIGKILL},
		{"a spec runs, by SIGTERM", "go", syscall.SIGTERM},
	} {
		t.Run(tt.when, func(t *testing.T) {
			t.Parallel()
			mark, files := "SHUNT_ENVTEST_MARK="+rand.Text(), t.TempDir()
			// This spec begins with go build.
			suite := childCommand(t.Context(), os.Args[0], "-test.run=^TestWebhook$", "-ginkgo.focus=goes by its file as it changes")
			suite.Env = append(os.Environ(), mark, "TMPDIR="+files)
			var output strings.Builder
			suite.Stdout, suite.Stderr = &output, &output
			// What is left holds the output open.
			suite.WaitDelay = cleanupPatience
			if err := suite.Start(); err != nil {
				t.Fatal(err)
			}
			await(t, func() string {
				for _, process := range processesWith(mark) {
					// envtest asks both programs for their flags first.
					if filepath.Base(process[0]) == tt.runs && !slices.Contains(process, "--help") {
						return ""
					}
				}
				return "the suite has not started " + tt.runs
			})
			if err := suite.Process.Signal(tt.signal); err != nil {
				t.Fatal(err)
			}
			if err := suite.Wait(); err == nil {
				t.Errorf("the suite passed:\n%s", &output)
			}
			await(t, func() string {
				if left := processesWith(mark); len(left) > 0 {
					return fmt.Sprintf("processes are left: %v", left)
				}
				if left, err := os.ReadDir(files); err != nil || len(left) > 0 {
					return fmt.Sprintf("files are left: %v, %v", left, err)
				}
				return ""
			})
		})
	}
}

// await waits until nothing is missing.
func await(t *testing.T, missing func() string) {
	t.Helper()
	for deadline := time.Now().Add(cleanupPatience); ; time.Sleep(20 * time.Millisecond) {
		what := missing()
		if what == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %s", cleanupPatience, what)
		}
	}
}

// processesWith returns the arguments of the processes in whose environment a
// variable is.
func processesWith(variable string) [][]string {
	environments, _ := filepath.Glob("/proc/[0-9]*/environ")
	var all [][]string
	for _, file := range environments {
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains("\x00"+string(text), "\x00"+variable+"\x00") {
			continue // gone, or another user's
		}
		arguments, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		all = append(all, strings.Split(string(arguments), "\x00"))
	}
	return all
}
