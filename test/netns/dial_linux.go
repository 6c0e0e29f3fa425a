package netns

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DialOptions are who opens a connection, and how.
type DialOptions struct {
	Identity
	Mark    uint32        // SO_MARK; 0 for none
	Source  netip.Addr    // source address, of any host (IP_TRANSPARENT); zero for the kernel's choice
	Device  string        // interface that the socket is bound to (SO_BINDTODEVICE); "" for none
	Timeout time.Duration // for the connection, and in Ask for the answer too; 0 for 5 s
}

// defaultTimeout is long because a busy machine is not a failure. Callers give less
// time to what is dropped on purpose.
const defaultTimeout = 5 * time.Second

func (o DialOptions) timeout() time.Duration {
	if o.Timeout == 0 {
		return defaultTimeout
	}
	return o.Timeout
}

// Dial opens a connection from the namespace. The network is tcp or udp.
func (ns *NS) Dial(ctx context.Context, network string, to netip.AddrPort, o DialOptions) (conn net.Conn, err error) {
	err = ns.Do(func() (err error) {
		conn, err = o.Dial(ctx, network, to)
		return err
	})
	return conn, err
}

// Dial opens a connection from the namespace of the calling thread.
func (o DialOptions) Dial(ctx context.Context, network string, to netip.AddrPort) (conn net.Conn, err error) {
	dialer := net.Dialer{
		Timeout: o.timeout(),
		Control: func(_, _ string, raw syscall.RawConn) error {
			return control(raw, func(fd int) error { return o.prepare(fd, to.Addr()) })
		},
	}
	if o.Source.IsValid() {
		dialer.LocalAddr = localAddr(network, o.Source)
	}
	// Given an address and not a name, net makes the socket on the goroutine that
	// dials: in its thread's namespace, with its identity.
	err = o.do(func() (err error) {
		conn, err = dialer.DialContext(ctx, network, to.String())
		return err
	})
	return conn, err
}

func localAddr(network string, addr netip.Addr) net.Addr {
	if strings.HasPrefix(network, "udp") {
		return net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0))
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0))
}

func (o DialOptions) prepare(fd int, to netip.Addr) error {
	if o.Mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(o.Mark)); err != nil {
			return os.NewSyscallError("setsockopt SO_MARK", err)
		}
	}
	if o.Device != "" {
		if err := unix.BindToDevice(fd, o.Device); err != nil {
			return os.NewSyscallError("setsockopt SO_BINDTODEVICE", err)
		}
	}
	if o.Source.IsValid() {
		return setTransparent(fd, to.Is6())
	}
	return nil
}

// setTransparent allows a socket addresses that are not the host's, both to send
// from and, under TPROXY, to be reached at.
func setTransparent(fd int, v6 bool) error {
	level, option := unix.SOL_IP, unix.IP_TRANSPARENT
	if v6 {
		level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	return os.NewSyscallError("setsockopt IP_TRANSPARENT", unix.SetsockoptInt(fd, level, option, 1))
}

// control runs f on the descriptor of a socket.
func control(raw syscall.RawConn, f func(fd int) error) error {
	var err error
	if rawErr := raw.Control(func(fd uintptr) { err = f(int(fd)) }); rawErr != nil {
		return rawErr
	}
	return err
}

// Reply is what a Server reports about itself and the connection.
type Reply struct {
	Server   string         // ListenOptions.Name
	Bound    uint16         // the port that the server listens on
	Local    netip.AddrPort // the connection's address at the server's end
	Remote   netip.AddrPort // the connection's address at the client's end, as the server sees it
	Original netip.AddrPort // where the client wanted to go, by SO_ORIGINAL_DST; zero if the kernel does not know
}

// Ask opens a connection, and returns the reply of the server at its other end.
// IsTimeout, IsUnreachable and IsRefused tell the errors of interest apart.
func (ns *NS) Ask(ctx context.Context, network string, to netip.AddrPort, o DialOptions) (Reply, error) {
	deadline := time.Now().Add(o.timeout())
	conn, err := ns.Dial(ctx, network, to, o)
	if err != nil {
		return Reply{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return Reply{}, err
	}
	if strings.HasPrefix(network, "udp") {
		// Rules of this host that drop or reject a datagram return EPERM; reading
		// tells which of the two it was.
		if _, err := conn.Write([]byte("who is there?\n")); err != nil && !errors.Is(err, unix.EPERM) {
			return Reply{}, err
		}
	}
	return ReadReply(conn)
}

// ReadReply reads a Server's reply on a new connection.
func ReadReply(conn net.Conn) (Reply, error) {
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		return Reply{}, fmt.Errorf("reading the server's reply: %w", err)
	}
	var reply Reply
	if err := json.Unmarshal(line, &reply); err != nil {
		return Reply{}, fmt.Errorf("reading the server's reply %q: %w", line, err)
	}
	return reply, nil
}

// IsTimeout reports whether nobody answered: the packets were dropped.
func IsTimeout(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) && netErr.Timeout()
}

// IsUnreachable reports whether this host has no route to the other end.
func IsUnreachable(err error) bool { return errors.Is(err, unix.ENETUNREACH) }

// IsRefused reports whether the other end answered that nothing listens there.
func IsRefused(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }
