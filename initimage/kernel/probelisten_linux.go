package kernel

import (
	"context"
	"io"
	"net"
	"net/netip"
	"time"
)

// listener is where a probe is awaited.
type listener struct {
	io.Closer
	port  uint16
	await func(size int) (text []byte, err error) // returns what the next one to come sends
}

// listen waits for connections or datagrams at an address. The socket is
// transparent, so that TPROXY can give it those for other addresses.
func listen(ctx context.Context, protocol string, address netip.AddrPort) (*listener, error) {
	transparent := onSocket(func(fd int) error { return setTransparent(fd, address.Addr().Is6()) })
	return listenWith(ctx, net.ListenConfig{Control: transparent}, protocol, address)
}

func listenWith(ctx context.Context, config net.ListenConfig, protocol string, address netip.AddrPort) (*listener, error) {
	network := protocol + "4"
	if address.Addr().Is6() {
		network = protocol + "6"
	}
	config.SetMultipathTCP(false)
	if protocol == "udp" {
		packets, err := config.ListenPacket(ctx, network, address.String())
		if err != nil {
			return nil, err
		}
		return &listener{packets, portOf(packets.LocalAddr()), func(size int) ([]byte, error) {
			_ = packets.SetReadDeadline(time.Now().Add(probePatience))
			text := make([]byte, size)
			n, _, err := packets.ReadFrom(text)
			return text[:n], err
		}}, nil
	}
	l, err := config.Listen(ctx, network, address.String())
	if err != nil {
		return nil, err
	}
	return &listener{l, portOf(l.Addr()), func(size int) ([]byte, error) {
		deadline := time.Now().Add(probePatience)
		_ = l.(*net.TCPListener).SetDeadline(deadline)
		conn, err := l.Accept()
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		_ = conn.SetDeadline(deadline)
		text := make([]byte, size)
		n, err := io.ReadFull(conn, text)
		return text[:n], err
	}}, nil
}

func portOf(addr net.Addr) uint16 {
	parsed, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return 0
	}
	return parsed.Port()
}
