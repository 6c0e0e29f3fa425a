package netns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"

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
	s.serving.Go(func() { s.answerPackets(conn) })
	return nil
}

// answerPackets answers every datagram from the address that it was sent to:
// a wildcard socket would pick one by itself, and a client, or the NAT between,
// would not know it.
func (s *Server) answerPackets(conn *net.UDPConn) {
	question, info := make([]byte, 512), make([]byte, 128)
	for {
		_, n, _, remote, err := conn.ReadMsgUDPAddrPort(question, info)
		if err != nil {
			return
		}
		local, err := destination(info[:n])
		if err != nil {
			continue // and so no reply: the client says what it missed
		}
		reply := Reply{Server: s.name, Bound: s.bound.Port(), Local: netip.AddrPortFrom(local, s.bound.Port()), Remote: remote}
		_, _, _ = conn.WriteMsgUDPAddrPort(reply.line(), sentFrom(local), remote)
	}
}

func setPacketInfo(fd int, v6 bool) error {
	level, option := unix.SOL_IP, unix.IP_PKTINFO
	if v6 {
		level, option = unix.SOL_IPV6, unix.IPV6_RECVPKTINFO
	}
	return os.NewSyscallError("setsockopt IP_PKTINFO", unix.SetsockoptInt(fd, level, option, 1))
}

// destination reads the address that a datagram was sent to. Both messages,
// in_pktinfo and in6_pktinfo, are an interface number and addresses.
func destination(oob []byte) (netip.Addr, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("reading a datagram's control messages: %w", err)
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4([4]byte(m.Data[8:12])), nil
		case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			return netip.AddrFrom16([16]byte(m.Data[:16])), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("a datagram without its destination among %d control messages", len(messages))
}

func sentFrom(addr netip.Addr) []byte {
	if addr.Is4() {
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: addr.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: addr.As16()})
}
