package netns

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func (s *Server) listenUDP(ns *NS, at netip.AddrPort, o ListenOptions) error {
	config := listenConfig(at.Addr(), o)
	var packets net.PacketConn
	err := ns.Do(func() error {
		return o.do(func() (err error) {
			packets, err = config.ListenPacket(context.Background(), networkOf("udp", at.Addr()), at.String())
			return err
		})
	})
	if err != nil {
		return err
	}
	conn := packets.(*net.UDPConn)
	s.closer, s.bound = conn, conn.LocalAddr().(*net.UDPAddr).AddrPort()
	s.serving.Go(func() { s.answerPackets(ns, conn, o) })
	return nil
}

// answerPackets answers every datagram from the address that it was sent to. A
// wildcard socket would choose one itself, which a client, or the NAT on the path,
// would not know.
func (s *Server) answerPackets(ns *NS, conn *net.UDPConn, o ListenOptions) {
	question, info := make([]byte, 512), make([]byte, 256)
	for {
		_, n, _, remote, err := conn.ReadMsgUDPAddrPort(question, info)
		if err != nil {
			return
		}
		local, err := s.destination(info[:n])
		if err != nil {
			continue // the client reports the missing reply
		}
		reply := Reply{Server: s.name, Bound: s.bound.Port(), Local: local, Remote: remote}
		if local.Port() == s.bound.Port() {
			_, _, _ = conn.WriteMsgUDPAddrPort(reply.line(), sentFrom(local.Addr()), remote)
			continue
		}
		_ = ns.Do(func() error { return o.answerFrom(local, remote, reply.line()) })
	}
}

// answerFrom sends a datagram from an address and port that are another socket's,
// or nobody's: an answer to what TPROXY took has to come from its destination.
func (o ListenOptions) answerFrom(local, remote netip.AddrPort, line []byte) error {
	dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(local), Control: func(_, _ string, raw syscall.RawConn) error {
		return control(raw, func(fd int) error {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
				return os.NewSyscallError("setsockopt SO_REUSEADDR", err)
			}
			return setTransparent(fd, local.Addr().Is6())
		})
	}}
	return o.do(func() error {
		conn, err := dialer.DialContext(context.Background(), "udp", remote.String())
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write(line)
		return err
	})
}

func setPacketInfo(fd int, v6 bool) error {
	level, option := unix.SOL_IP, unix.IP_PKTINFO
	if v6 {
		level, option = unix.SOL_IPV6, unix.IPV6_RECVPKTINFO
	}
	return os.NewSyscallError("setsockopt IP_PKTINFO", unix.SetsockoptInt(fd, level, option, 1))
}

// setOriginalDestination makes the kernel report the port that a datagram was sent
// to as well: under TPROXY it is not the socket's.
func setOriginalDestination(fd int, v6 bool) error {
	level, option := unix.SOL_IP, unix.IP_RECVORIGDSTADDR
	if v6 {
		level, option = unix.SOL_IPV6, unix.IPV6_RECVORIGDSTADDR
	}
	return os.NewSyscallError("setsockopt IP_RECVORIGDSTADDR", unix.SetsockoptInt(fd, level, option, 1))
}

// destination reads the address and port that a datagram was sent to. in_pktinfo
// and in6_pktinfo are an interface number and addresses; the original destination
// is a sockaddr_in or sockaddr_in6.
func (s *Server) destination(oob []byte) (netip.AddrPort, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("reading a datagram's control messages: %w", err)
	}
	var local netip.AddrPort
	for _, m := range messages {
		if original, ok := originalDestination(m); ok {
			return original, nil
		}
		if addr, ok := packetInfo(m); ok {
			local = netip.AddrPortFrom(addr, s.bound.Port())
		}
	}
	if !local.IsValid() {
		return local, fmt.Errorf("a datagram without its destination among %d control messages", len(messages))
	}
	return local, nil
}

func originalDestination(m unix.SocketControlMessage) (netip.AddrPort, bool) {
	switch {
	case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_ORIGDSTADDR && len(m.Data) >= unix.SizeofSockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(m.Data[4:8])), binary.BigEndian.Uint16(m.Data[2:])), true
	case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_ORIGDSTADDR && len(m.Data) >= unix.SizeofSockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(m.Data[8:24])), binary.BigEndian.Uint16(m.Data[2:])), true
	}
	return netip.AddrPort{}, false
}

func packetInfo(m unix.SocketControlMessage) (netip.Addr, bool) {
	switch {
	case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
		return netip.AddrFrom4([4]byte(m.Data[8:12])), true
	case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
		return netip.AddrFrom16([16]byte(m.Data[:16])), true
	}
	return netip.Addr{}, false
}

func sentFrom(addr netip.Addr) []byte {
	if addr.Is4() {
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: addr.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: addr.As16()})
}
