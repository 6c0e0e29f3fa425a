package netns

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Identity is a user and a group, as the owner match of iptables sees them. The
// zero value is that of this process.
type Identity struct {
	UID, GID uint32
}

// do calls f on the caller's goroutine, with the identity as the thread's file
// system uid and gid. Sockets take them on when they are made and accepted. The
// thread keeps CAP_NET_ADMIN and CAP_NET_RAW.
func (id Identity) do(f func() error) error {
	if id == (Identity{}) {
		return f()
	}
	runtime.LockOSThread()
	before := Identity{}.current()
	if err := id.assume(); err != nil {
		before.mustAssume()
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		before.mustAssume()
		runtime.UnlockOSThread()
	}()
	return f()
}

// noID makes setfsuid(2) and setfsgid(2) change nothing and return the id.
const noID = -1

func (Identity) current() Identity {
	uid, _ := unix.SetfsuidRetUid(noID)
	gid, _ := unix.SetfsgidRetGid(noID)
	return Identity{UID: uint32(uid), GID: uint32(gid)}
}

// assume sets the ids of this thread. The two system calls report no failure, so it
// reads the ids back.
func (id Identity) assume() error {
	_, _ = unix.SetfsgidRetGid(int(id.GID))
	_, _ = unix.SetfsuidRetUid(int(id.UID))
	if now := id.current(); now != id {
		return fmt.Errorf("taking on uid %d gid %d: the kernel left uid %d gid %d; CAP_SETUID and CAP_SETGID are needed",
			id.UID, id.GID, now.UID, now.GID)
	}
	return nil
}

// mustAssume switches back. A thread that kept the identity would pass it on to
// other goroutines' sockets.
func (id Identity) mustAssume() {
	if err := id.assume(); err != nil {
		panic("netns: " + err.Error())
	}
}
