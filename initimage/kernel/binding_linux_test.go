package kernel

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestMayBindToLoopback checks that the answer is the kernel's, and that asking costs this process
// no capability.
func TestMayBindToLoopback(t *testing.T) {
	before := capabilities(t)
	may := MayBindToLoopback()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	t.Logf("Linux %s: %t", unix.ByteSliceToString(name.Release[:]), may)
	if major := name.Release[0]; major >= '6' && name.Release[1] == '.' && !may {
		t.Error("this kernel lets every process bind a socket to lo")
	}
	if after := capabilities(t); after != before {
		t.Errorf("capabilities were %v and are %v", before, after)
	}
}

func capabilities(t *testing.T) (now [2]unix.CapUserData) {
	t.Helper()
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &now[0]); err != nil {
		t.Fatal(err)
	}
	return now
}
