package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// abortHops resets the connections to the app from addresses that this namespace
// does not have: the proxy made them from its clients' addresses, or from ::6. Once
// the routing that they depend on is gone, no answer comes back, and they and their
// clients would hang. Now both ends are reset, and the proxy closes the client's.
//
// A kernel may lack the call (CONFIG_INET_DIAG_DESTROY); then nothing is reset.
func (h *Host) abortHops(family ruleset.Family) error {
	addresses, err := h.netlink.AddrList(nil, netlinkFamily(family))
	if err != nil {
		return fmt.Errorf("listing the addresses: %w", err)
	}
	own := map[netip.Addr]bool{}
	for _, a := range addresses {
		ip, _ := netip.AddrFromSlice(a.IP)
		own[ip.Unmap()] = true
	}
	sockets, err := listSockets(h.netlink.SocketDiagTCP, family)
	if errors.Is(err, errNoSocketList) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing the sockets: %w", err)
	}
	for _, socket := range sockets {
		source, _ := netip.AddrFromSlice(socket.ID.Source)
		destination, _ := netip.AddrFromSlice(socket.ID.Destination)
		source, destination = source.Unmap(), destination.Unmap()
		if ruleset.ThisHost(source) || own[source] || !own[destination] {
			continue
		}
		err := destroy(family, socket.ID)
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("resetting the connection from %s to %s: %w", source, destination, err)
		}
	}
	return nil
}

// errNoSocketList is the error of a kernel that does not list sockets.
var errNoSocketList = errors.New("the kernel does not list sockets (CONFIG_INET_DIAG)")

// listSockets lists the sockets of a family. A list that changed meanwhile is as good
// as one of a moment before or after.
func listSockets(list func(family uint8) ([]*netlink.Socket, error), family ruleset.Family) ([]*netlink.Socket, error) {
	sockets, err := list(uint8(netlinkFamily(family)))
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		return nil, errNoSocketList
	case errors.Is(err, netlink.ErrDumpInterrupted):
		return sockets, nil
	}
	return sockets, err
}

// destroy resets a TCP connection of this namespace (SOCK_DESTROY of
// sock_diag(7)).
func destroy(family ruleset.Family, id netlink.SocketID) error {
	addresses := make([]byte, 32)
	src, dst := id.Source.To16(), id.Destination.To16()
	if family == ruleset.IPv4 {
		src, dst = id.Source.To4(), id.Destination.To4()
	}
	copy(addresses, src)
	copy(addresses[16:], dst)
	// struct inet_diag_req_v2
	request := []byte{uint8(netlinkFamily(family)), unix.IPPROTO_TCP, 0, 0}
	request = binary.NativeEndian.AppendUint32(request, 1<<32-1) // in any state
	request = binary.BigEndian.AppendUint16(request, id.SourcePort)
	request = binary.BigEndian.AppendUint16(request, id.DestinationPort)
	request = append(request, addresses...)
	for _, n := range []uint32{id.Interface, id.Cookie[0], id.Cookie[1]} {
		request = binary.NativeEndian.AppendUint32(request, n)
	}
	req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	req.AddRawData(request)
	_, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	return err
}

// onSocket returns a Control function that sets an option before a socket is bound
// or connected.
func onSocket(set func(fd int) error) func(string, string, syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		var failed error
		if err := raw.Control(func(fd uintptr) { failed = set(int(fd)) }); err != nil {
			return err
		}
		return os.NewSyscallError("setsockopt", failed)
	}
}
