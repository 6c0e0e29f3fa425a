package envtest_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// endChildrenWithThisProcess has a shell wait for the end of this process,
// however it comes, and then end the API server and etcd and remove files. It
// returns what calls the shell off. Without it a test run that is killed
// leaves both running.
func endChildrenWithThisProcess(files string) (callOff func()) {
	GinkgoHelper()
	command := exec.Command("/bin/sh", "-c", `read -r word; [ "$word" = done ] || { kill -9 "$@"; rm -rf "$0"; }`, files)
	command.Args = append(command.Args, children()...)
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C reaches a process group
	// The kernel closes this end of the pipe with this process.
	input, err := command.StdinPipe()
	Expect(err).NotTo(HaveOccurred())
	Expect(command.Start()).To(Succeed())
	return func() {
		_, err := fmt.Fprintln(input, "done")
		Expect(err).NotTo(HaveOccurred())
		Expect(command.Wait()).To(Succeed())
	}
}

// children are the process ids of the children of this process.
func children() []string {
	GinkgoHelper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", os.Getpid()))
	Expect(err).NotTo(HaveOccurred())
	var ids []string
	for _, file := range lists {
		text, err := os.ReadFile(file)
		Expect(err).NotTo(HaveOccurred())
		ids = append(ids, strings.Fields(string(text))...)
	}
	return ids
}
