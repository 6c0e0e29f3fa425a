package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// direction is one of the ways from a client to a server.
type direction struct {
	inbound bool // from a client outside to the app; otherwise from the app to a server outside
	ipv6    bool
}

// directions are all of them. The two families of a direction are adjacent: they share a server.
var directions = []direction{{inbound: true}, {inbound: true, ipv6: true}, {}, {ipv6: true}}

func (d direction) String() string {
	to, family := "outbound", "IPv4"
	if d.inbound {
		to = "inbound"
	}
	if d.ipv6 {
		family = "IPv6"
	}
	return to + " " + family
}

// way is such a way in a network.
type way struct {
	direction
	*network
	folder string // of its server's files; what a trial's prepare leaves is here
}

// appIdentity is the identity of the app, and of everybody outside.
var appIdentity = netns.Identity{UID: 1000, GID: 1000}

// The server outside.
var (
	serverIPv4 = netip.MustParseAddr("203.0.113.10")
	serverIPv6 = netip.MustParseAddr("2001:db8::10")
)

// address returns the server's address, as the client dials it.
func (w *way) address() netip.Addr {
	switch {
	case w.inbound && w.ipv6:
		return netns.PodIPv6
	case w.inbound:
		return netns.PodIPv4
	case w.ipv6:
		return serverIPv6
	default:
		return serverIPv4
	}
}

// url returns a URL with the server's address.
func (w *way) url(scheme string, port uint16) string {
	return fmt.Sprintf("%s://%s", scheme, netip.AddrPortFrom(w.address(), port))
}

// clientHost and serverHost return the namespaces of the two.
func (w *way) clientHost() *netns.NS {
	if w.inbound {
		return w.Outside
	}
	return w.Pod
}

func (w *way) serverHost() *netns.NS {
	if w.inbound {
		return w.Pod
	}
	return w.Outside
}

// answerTime is how long anything may take on a busy machine. It is only waited for if something is
// wrong.
const answerTime = 60 * time.Second

// dial opens a connection from the client to a port of the server.
func (w *way) dial(ctx context.Context, port uint16) (*net.TCPConn, error) {
	conn, err := w.clientHost().Dial(ctx, "tcp", netip.AddrPortFrom(w.address(), port),
		netns.DialOptions{Identity: appIdentity, Timeout: answerTime})
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn.(*net.TCPConn), nil
}

// listen makes the server accept connections to a port, until the test's end.
func (w *way) listen(t *testing.T, port uint16) *net.TCPListener {
	t.Helper()
	wildcard := netns.Wildcards[0]
	if w.ipv6 {
		wildcard = netns.Wildcards[1]
	}
	listener, err := w.serverHost().ListenTCP(netip.AddrPortFrom(wildcard, port), netns.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

// serve answers each connection to a port in a goroutine of its own, and
// closes it afterwards.
func (w *way) serve(t *testing.T, port uint16, answer func(*net.TCPConn)) {
	t.Helper()
	listener := w.listen(t, port)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.AcceptTCP()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(answerTime))
				answer(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
}

// user is the user of a program.
type user struct{ id netns.Identity }

var root, app = user{}, user{appIdentity}

// folder makes a folder that a user owns.
func (u user) folder(t *testing.T, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp(runFolder, name+"-") //nolint:usetesting // t.TempDir's are root's alone
	if err == nil {
		err = os.Chown(dir, int(u.id.UID), int(u.id.GID))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// command returns a program of a user in a namespace. It has its own users, its own /run, and no
// resolver. All the processes that it starts end with it, and with this one. Its first process is a
// shell: orphans become that one's children, which vsftpd does not survive.
func (u user) command(ctx context.Context, ns *netns.NS, args ...string) *netns.Cmd {
	const own = `mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/group" /etc/group && mount --bind /dev/null /etc/resolv.conf &&
		mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && user=$2 && shift 2 &&
		setpriv --reuid="$user" --regid="$user" --clear-groups -- "$@"; exit $?`
	cmd := ns.Command(ctx, "unshare", append([]string{
		"--pid", "--ipc", "--fork", "--kill-child=KILL", "--mount-proc", "--", "sh", "-c", own, "sh", runFolder, fmt.Sprint(u.id.UID),
	}, args...)...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + runFolder, "LC_ALL=C.UTF-8"}
	return cmd
}

// writeUsers writes the files of users and groups for programs.
func writeUsers() error {
	const (
		passwd = "root:x:0:0:::/bin/sh\napp:x:1000:1000::/:/bin/sh\n" +
			"sshd:x:101:65534::/run/sshd:/bin/false\nnobody:x:65534:65534:::/bin/false\n"
		group = "root:x:0:\napp:x:1000:\nnogroup:x:65534:\n"
	)
	return errors.Join(
		os.WriteFile(filepath.Join(runFolder, "passwd"), []byte(passwd), 0o644), //nolint:gosec // as such files are
		os.WriteFile(filepath.Join(runFolder, "group"), []byte(group), 0o644))   //nolint:gosec // as such files are
}

// startTime is how long a program may take to start on a busy machine.
const startTime = 60 * time.Second

// daemon starts a server on the way's host, and waits until its port is open. It ends with the
// test.
func (u user) daemon(t *testing.T, ns *netns.NS, port uint16, args ...string) {
	t.Helper()
	log, err := os.CreateTemp(runFolder, filepath.Base(args[0])+"-*.log") // open for reading too: it is empty
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := u.command(ctx, ns, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = log, log, log // vsftpd reports fatal errors on its standard input
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatalf("%s: %v", args[0], err)
	}
	ended := make(chan string, 1) // how
	go func() { ended <- fmt.Sprint(cmd.Wait()) }()
	t.Cleanup(func() {
		select {
		case how := <-ended:
			t.Errorf("%s ended by itself: %s", args[0], how)
			ended <- how
		default:
		}
		cancel()
		select {
		case <-ended:
		case <-time.After(startTime):
			t.Errorf("%s does not end", args[0])
		}
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("%s in %s says:\n%.4000s", args[0], ns.Name(), text)
		}
	})
	loopback := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	for deadline := time.Now().Add(startTime); ; time.Sleep(20 * time.Millisecond) {
		conn, err := ns.Dial(t.Context(), "tcp", loopback, netns.DialOptions{})
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case how := <-ended:
			ended <- how
			t.Fatalf("%s ended: %s", args[0], how)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen on port %d: %v", args[0], port, err)
		}
	}
}

// run runs a client to its end, and returns what it printed and how it ended.
func (w *way) run(t *testing.T, args ...string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), answerTime)
	defer cancel()
	out, err := app.command(ctx, w.clientHost(), args...).CombinedOutput()
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	if err != nil {
		lines = append(lines, "ended: "+err.Error())
	}
	return lines
}

// errno names an error of a connection.
func errno(err error) string {
	var number syscall.Errno
	switch {
	case err == nil:
		return ""
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "nothing"
	case errors.As(err, &number):
		return errnoNames[number]
	default:
		return err.Error()
	}
}

var errnoNames = map[syscall.Errno]string{
	syscall.ECONNRESET: "ECONNRESET", syscall.EPIPE: "EPIPE", syscall.ECONNREFUSED: "ECONNREFUSED", syscall.ETIMEDOUT: "ETIMEDOUT",
	syscall.EHOSTUNREACH: "EHOSTUNREACH", syscall.ENETUNREACH: "ENETUNREACH",
}

// modes are those of the networks with a proxy.
var modes = []interception.Mode{interception.ModeRedirect, interception.ModeTProxy, untracked}
