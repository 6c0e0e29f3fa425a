package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NS is a network namespace without a name. It ends, with every child started in
// it, by Close or with the process, however that ends.
type NS struct {
	name   string
	file   *os.File
	links  *netlink.Handle
	keeper chan func()   // run on the thread that forks
	closed chan struct{} // closed by Close
}

// New makes a network namespace with loopback up and without duplicate address
// detection, which would keep new IPv6 addresses unusable for a second. The name is
// only for messages. New needs CAP_SYS_ADMIN.
func New(name string) (*NS, error) {
	ns := &NS{name: name, keeper: make(chan func()), closed: make(chan struct{})}
	started := make(chan error)
	go ns.keep(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("making network namespace %s: %w", name, err)
	}
	if err := ns.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("preparing network namespace %s: %w", name, err), ns.Close())
	}
	return ns, nil
}

// keep owns one thread in the namespace until Close. Children are forked from it:
// the kernel sends a child its parent death signal when the thread that forked it
// ends, and Go ends the threads of its pool at any time.
func (ns *NS) keep(started chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The main thread neither ends with its goroutine, nor may it leave its
		// namespace: /proc/self and so /proc/net show it. While it is locked here,
		// it cannot be the thread that runs the next goroutine.
		defer runtime.UnlockOSThread()
		done := make(chan struct{})
		go func() { defer close(done); ns.keep(started) }()
		<-done
		return
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		started <- os.NewSyscallError("unshare", err)
		return
	}
	var err error
	ns.file, err = os.Open("/proc/thread-self/ns/net")
	started <- err
	// Not unlocked: the runtime ends a thread whose goroutine ends locked.
	for err == nil {
		select {
		case run := <-ns.keeper:
			run()
		case <-ns.closed:
			return
		}
	}
}

func (ns *NS) prepare() error {
	err := ns.Do(func() (err error) {
		ns.links, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return fmt.Errorf("opening netlink: %w", err)
	}
	for _, key := range []string{"all", "default", "lo"} {
		if err := ns.Sysctl("net/ipv6/conf/"+key+"/accept_dad", "0"); err != nil {
			return err
		}
	}
	lo, err := ns.links.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	if err := ns.links.LinkSetUp(lo); err != nil {
		return fmt.Errorf("setting lo up: %w", err)
	}
	return nil
}

// Close kills the children that were started in the namespace and releases it. The
// kernel removes it once its last socket is closed.
func (ns *NS) Close() error {
	close(ns.closed)
	if ns.links != nil {
		ns.links.Close()
	}
	if ns.file == nil {
		return nil
	}
	return ns.file.Close()
}

// Name returns the name that New was given.
func (ns *NS) Name() string { return ns.name }

// Netlink returns a netlink socket (NETLINK_ROUTE) of the namespace. Close closes
// it.
func (ns *NS) Netlink() *netlink.Handle { return ns.links }

// Path returns a path that opens the namespace, from any process of the same pid
// namespace and while this process lives. ip netns and nsenter accept it.
func (ns *NS) Path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.file.Fd())
}

// Do calls f on the caller's goroutine, in the namespace. Goroutines that f starts
// are not in the namespace; sockets that it opens stay in it.
func (ns *NS) Do(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("opening this thread's network namespace: %w", err)
	}
	defer home.Close()
	if err := unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("entering network namespace %s: %w", ns.name, err)
	}
	defer func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			// The thread would run other goroutines in the wrong namespace.
			panic(fmt.Sprintf("leaving network namespace %s: %v", ns.name, err))
		}
		runtime.UnlockOSThread()
	}()
	return f()
}

// DoAs calls f as Do does, with the identity as the thread's file system uid and
// gid, which the sockets that f opens take on.
func (ns *NS) DoAs(id Identity, f func() error) error {
	return ns.Do(func() error { return id.do(f) })
}

// Sysctl writes a file below /proc/sys/net of the namespace. The key is the
// file's path below /proc/sys, such as "net/ipv4/ip_forward".
func (ns *NS) Sysctl(key, value string) error {
	if !strings.HasPrefix(key, "net/") {
		return fmt.Errorf("sysctl %q is not of a network namespace; accepted: paths that begin with net/", key)
	}
	return ns.Do(func() error {
		return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0)
	})
}
