package kernel

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLockIsNotAwaitedForEver holds the lock and releases it late, or never.
func TestLockIsNotAwaitedForEver(t *testing.T) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread is in a namespace of its own
		if err := unix.Unshare(unix.CLONE_NEWNET); errors.Is(err, unix.EPERM) {
			t.Log("not root: in this network namespace, which others may use")
		} else if err != nil {
			t.Error(err)
			return
		}
		holder, err := acquireLock(t.Context(), time.Minute)
		if err != nil {
			t.Error(err)
			return
		}
		_, err = acquireLock(t.Context(), 30*time.Millisecond)
		if err == nil || !strings.Contains(err.Error(), lockName) || !strings.Contains(err.Error(), "30ms") {
			t.Errorf("with the lock held: %v", err)
		}
		time.AfterFunc(30*time.Millisecond, holder.release)
		next, err := acquireLock(t.Context(), time.Minute)
		if err != nil {
			t.Errorf("with the lock given back: %v", err)
			return
		}
		next.release()
	}()
	<-done
}
