package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoCgroup means that this process cannot make a cgroup that bounds memory.
var ErrNoCgroup = errors.New("no cgroup for memory can be made here")

// MemoryCgroup bounds the memory of processes and of the kernel's work for them, as
// a container's limit does.
type MemoryCgroup struct {
	dir  string
	peak string // file with the most memory in use
}

// cgroupPrefix begins the names of our cgroups. The number of this process follows.
const cgroupPrefix = "shunt-test-"

var cgroups atomic.Int32

// NewMemoryCgroup makes a cgroup with so many bytes of memory, and deletes those
// that killed tests have left.
func NewMemoryCgroup(bytes int64) (*MemoryCgroup, error) {
	for _, version := range []struct{ root, needs, controller, limit, peak string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "", "memory.limit_in_bytes", "memory.max_usage_in_bytes"},
		{"/sys/fs/cgroup", "cgroup.subtree_control", "memory", "memory.max", "memory.peak"},
	} {
		text, err := os.ReadFile(filepath.Join(version.root, version.needs))
		if err != nil || !strings.Contains(string(text), version.controller) {
			continue
		}
		removeStale(version.root)
		dir := filepath.Join(version.root, fmt.Sprintf("%s%d-%d", cgroupPrefix, os.Getpid(), cgroups.Add(1)))
		if err := os.Mkdir(dir, 0o755); errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
			return nil, fmt.Errorf("%w: %w", ErrNoCgroup, err)
		} else if err != nil {
			return nil, err
		}
		c := &MemoryCgroup{dir, version.peak}
		if err := os.WriteFile(filepath.Join(dir, version.limit), []byte(strconv.FormatInt(bytes, 10)), 0o600); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		return c, nil
	}
	return nil, ErrNoCgroup
}

func removeStale(root string) {
	found, _ := filepath.Glob(filepath.Join(root, cgroupPrefix+"*"))
	for _, dir := range found {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), cgroupPrefix), "-")
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, fs.ErrNotExist) {
			_ = os.Remove(dir)
		}
	}
}

// Inside returns a command that runs a program in the cgroup.
func (c *MemoryCgroup) Inside(name string, args ...string) (string, []string) {
	enter := `echo $$ >"$0" && exec "$@"`
	return "/bin/sh", append([]string{"-c", enter, filepath.Join(c.dir, "cgroup.procs"), name}, args...)
}

// Peak returns the most memory that was in use at a time; 0 if the kernel does not
// report it.
func (c *MemoryCgroup) Peak() (int64, error) {
	text, err := os.ReadFile(filepath.Join(c.dir, c.peak))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // before Linux 5.19
	}
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}

// Close deletes the cgroup. A process that has ended may be in it for a moment
// longer.
func (c *MemoryCgroup) Close() error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := os.Remove(c.dir)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}
