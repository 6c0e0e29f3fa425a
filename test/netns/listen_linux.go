package netns

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ListenOptions are who listens, and how.
type ListenOptions struct {
	Identity           // of the listening socket, and of the accepted ones
	Name        string // in the server's replies
	Transparent bool   // IP_TRANSPARENT: accept TPROXY's connections, and answer from any address
}

// Wildcards are the addresses that listen on all of one family.
var Wildcards = [...]netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}

// Server answers everyone who reaches it with a Reply. Over tcp it then echoes.
type Server struct {
	name    string
	closer  io.Closer
	bound   netip.AddrPort
	serving sync.WaitGroup
}

// Listen starts a Server in the namespace. The network is tcp or udp. The address
// may be the wildcard of a family (0.0.0.0 or ::), which covers that family only.
func (ns *NS) Listen(network string, at netip.AddrPort, o ListenOptions) (*Server, error) {
	server := &Server{name: o.Name}
	var err error
	if strings.HasPrefix(network, "udp") {
		err = server.listenUDP(ns, at, o)
	} else {
		err = server.listenTCP(ns, at, o)
	}
	if err != nil {
		return nil, fmt.Errorf("listening as %s in %s: %w", o.Name, ns.name, err)
	}
	return server, nil
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() netip.AddrPort { return s.bound }

// Close stops the server, and waits until its connections are done.
func (s *Server) Close() error {
	err := s.closer.Close()
	s.serving.Wait()
	return err
}

func (s *Server) listenTCP(ns *NS, at netip.AddrPort, o ListenOptions) error {
	listener, err := ns.ListenTCP(at, o)
	if err != nil {
		return err
	}
	s.closer, s.bound = listener, listener.Addr().(*net.TCPAddr).AddrPort()
	s.serving.Go(func() {
		o.Accept(listener, func(conn *net.TCPConn) {
			s.serving.Go(func() { s.answer(conn) })
		})
	})
	return nil
}

// ListenTCP makes a listening socket in the namespace.
func (ns *NS) ListenTCP(at netip.AddrPort, o ListenOptions) (*net.TCPListener, error) {
	config := listenConfig(at.Addr(), o)
	var listener net.Listener
	err := ns.Do(func() error {
		return o.do(func() (err error) {
			listener, err = config.Listen(context.Background(), networkOf("tcp", at.Addr()), at.String())
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return listener.(*net.TCPListener), nil
}

// Accept passes every connection of a listener to serve, which must not block,
// until the listener is closed. It accepts with the identity of the options,
// because the owner match sees who accepted a socket.
func (o ListenOptions) Accept(listener *net.TCPListener, serve func(*net.TCPConn)) {
	_ = o.do(func() error {
		for {
			conn, err := listener.AcceptTCP()
			if err != nil {
				return err
			}
			serve(conn)
		}
	})
}

func listenConfig(address netip.Addr, options ListenOptions) net.ListenConfig {
	config := net.ListenConfig{Control: func(network, _ string, raw syscall.RawConn) error {
		return control(raw, func(fd int) error {
			if strings.HasPrefix(network, "udp") {
				if err := setPacketInfo(fd, address.Is6()); err != nil {
					return err
				}
				// Without it, nobody else could answer from this port what TPROXY
				// took from it.
				if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
					return os.NewSyscallError("setsockopt SO_REUSEADDR", err)
				}
			}
			if options.Transparent && strings.HasPrefix(network, "udp") {
				if err := setOriginalDestination(fd, address.Is6()); err != nil {
					return err
				}
			}
			if options.Transparent {
				return setTransparent(fd, address.Is6())
			}
			return nil
		})
	}}
	// Proxies have no multipath listener, which is Go's default.
	config.SetMultipathTCP(false)
	return config
}

// networkOf returns the network of one family, so that a wildcard covers that
// family alone.
func networkOf(protocol string, addr netip.Addr) string {
	if addr.Is6() {
		return protocol + "6"
	}
	return protocol + "4"
}

// answer reports who was reached, and echoes until the client closes. So the
// client's end, whose port is random, is the one in TIME_WAIT.
func (s *Server) answer(conn *net.TCPConn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(defaultTimeout))
	reply := Reply{
		Server: s.name, Bound: s.bound.Port(),
		Local:  conn.LocalAddr().(*net.TCPAddr).AddrPort(),
		Remote: conn.RemoteAddr().(*net.TCPAddr).AddrPort(),
	}
	reply.Original, _ = OriginalDst(conn)
	if _, err := conn.Write(reply.line()); err == nil {
		_, _ = io.Copy(conn, conn)
	}
}

func (r Reply) line() []byte {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // names, ports and addresses all have a text form
	}
	return append(text, '\n')
}

// OriginalDst returns the original destination of an accepted connection, as
// connection tracking knows it (SO_ORIGINAL_DST). It is an error if connection
// tracking does not know the connection.
func OriginalDst(conn *net.TCPConn) (netip.AddrPort, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	var dst netip.AddrPort
	err = control(raw, func(fd int) (err error) {
		if conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().Is4() {
			dst, err = originalDst4(fd)
		} else {
			dst, err = originalDst6(fd)
		}
		return os.NewSyscallError("getsockopt SO_ORIGINAL_DST", err)
	})
	return dst, err
}

// soOriginalDst is SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST alike
// (linux/netfilter_ipv4.h, linux/netfilter_ipv6/ip6_tables.h).
const soOriginalDst = 80

// originalDst4 reads a sockaddr_in of 16 bytes: family, port, address, padding.
// Package unix has no getsockopt of that type, but one of a like size.
func originalDst4(fd int) (netip.AddrPort, error) {
	mreq, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, soOriginalDst)
	if err != nil {
		return netip.AddrPort{}, err
	}
	b := mreq.Multiaddr
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3])), nil
}

// originalDst6 reads a sockaddr_in6, which is at the beginning of the type used
// here.
func originalDst6(fd int) (netip.AddrPort, error) {
	info, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, soOriginalDst)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port := (*[2]byte)(unsafe.Pointer(&info.Addr.Port)) // in network order
	return netip.AddrPortFrom(netip.AddrFrom16(info.Addr.Addr), uint16(port[0])<<8|uint16(port[1])), nil
}
