//go:build linux

package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/netns"
)

// shot is one packet to send, and where it was last seen in the pod.
type shot struct {
	ruleset.Packet
	seen sighting
}

// sighting is what the kernel had made of a packet at its end in the pod: behind all rules of INPUT
// or POSTROUTING. The zero value means that it did not get there.
type sighting struct {
	there   bool
	left    bool // by an interface; else it is about to be delivered
	to      netip.AddrPort
	taken   uint16 // port of the transparent socket that TPROXY gave it to; 0 for none
	in, out string
}

// wire sends packets as they are, one by one, into a pod and out of its processes. A table at the end
// of all hooks reports and drops each, so that nothing ever answers.
type wire struct {
	lab    *netns.Lab
	names  map[uint32]string // of the pod's interfaces, by index
	frames map[string]frameSender
	log    int // netlink socket of nflog
	fence  int // packet socket on lo
}

// frameSender sends frames to one interface of the pod.
type frameSender struct {
	socket   int
	index    int // of the other end
	own, pod [6]byte
}

const (
	observerGroup = 7  // of nflog
	ownTTL        = 77 // of the packets that are sent, which tells them from the kernel's own
	headerLength  = 128
)

// proxyPorts are where transparent sockets listen, and what their sockets are marked with.
var transparentPorts = []uint16{15006, 15001, 15053, othersPort, 15008}

// observer is the table that reports and drops. It also drops what the kernel sends by itself, as for
// REJECT, before any rule counts it.
func observer() string {
	text := "table inet observer {\n\tchain first {\n\t\ttype filter hook output priority -2000; policy accept;\n"
	text += fmt.Sprintf("\t\tip ttl != %d drop\n\t\tip6 hoplimit != %d drop\n\t}\n", ownTTL, ownTTL)
	text += fmt.Sprintf("\tchain arrived {\n\t\ttype filter hook input priority %d; policy accept;\n", math.MaxInt32-1)
	for _, port := range transparentPorts {
		text += fmt.Sprintf("\t\tsocket mark %d log prefix \"%d\" group %d queue-threshold 1 drop\n", port, port, observerGroup)
	}
	text += fmt.Sprintf("\t\tlog prefix \"0\" group %d queue-threshold 1 drop\n\t}\n", observerGroup)
	text += fmt.Sprintf("\tchain leaves {\n\t\ttype filter hook postrouting priority %d; policy accept;\n", math.MaxInt32-1)
	text += fmt.Sprintf("\t\toifname != \"lo\" log prefix \"0\" group %d queue-threshold 1 drop\n\t}\n}\n", observerGroup)
	return text
}

func newWire(t *testing.T, lab *netns.Lab) *wire {
	t.Helper()
	w := &wire{lab: lab, names: map[uint32]string{}, frames: map[string]frameSender{}}
	links, err := lab.Pod.Netlink().LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		w.names[uint32(link.Attrs().Index)] = link.Attrs().Name
		if link.Type() == "veth" {
			w.frames[link.Attrs().Name] = newFrameSender(t, lab, link)
		}
	}
	if err := lab.Pod.Do(w.open); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, s := range w.frames {
			_ = unix.Close(s.socket)
		}
		_, _ = unix.Close(w.log), unix.Close(w.fence)
	})
	for _, port := range transparentPorts {
		for _, network := range []string{"tcp", "udp"} {
			for _, at := range []string{"0.0.0.0", "::"} {
				listenMarked(t, lab.Pod, network, netip.MustParseAddr(at), port)
			}
		}
	}
	return w
}

func newFrameSender(t *testing.T, lab *netns.Lab, inPod netlink.Link) frameSender {
	t.Helper()
	peer, err := lab.Outside.Netlink().LinkByName(inPod.Attrs().Name)
	if err != nil {
		t.Fatal(err)
	}
	sender := frameSender{
		index: peer.Attrs().Index, own: [6]byte(peer.Attrs().HardwareAddr), pod: [6]byte(inPod.Attrs().HardwareAddr),
	}
	err = lab.Outside.Do(func() (err error) {
		sender.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sender
}

// listenMarked opens a transparent socket that is marked with its port.
func listenMarked(t *testing.T, ns *netns.NS, network string, at netip.Addr, port uint16) {
	t.Helper()
	domain, kind := unix.AF_INET, unix.SOCK_STREAM
	level, option := unix.SOL_IP, unix.IP_TRANSPARENT
	var addr unix.Sockaddr = &unix.SockaddrInet4{Port: int(port)}
	if at.Is6() {
		domain, level, option, addr = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, &unix.SockaddrInet6{Port: int(port)}
	}
	if network == "udp" {
		kind = unix.SOCK_DGRAM
	}
	err := ns.Do(func() error {
		socket, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = unix.Close(socket) })
		if at.Is6() {
			if err := unix.SetsockoptInt(socket, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
				return err
			}
		}
		if err := unix.SetsockoptInt(socket, level, option, 1); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_MARK, int(port)); err != nil {
			return err
		}
		if err := unix.Bind(socket, addr); err != nil || network == "udp" {
			return err
		}
		return unix.Listen(socket, 1)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// fenceProtocol is the type of the frames that show that all earlier ones were handled.
const fenceProtocol = 0x88b5 // for experiments (IEEE 802)

// open opens the sockets that stay in the pod.
func (w *wire) open() (err error) {
	if w.log, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER); err != nil {
		return fmt.Errorf("opening a socket to nflog: %w", err)
	}
	if err := unix.SetsockoptInt(w.log, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil {
		return err
	}
	// From linux/netfilter/nfnetlink_log.h: the commands are NFULA_CFG_CMD (1), MODE (2) and QTHRESH (5).
	for _, attribute := range [][]byte{
		netlinkAttribute(1, []byte{1}),
		netlinkAttribute(2, append(binary.BigEndian.AppendUint32(nil, headerLength), 2, 0)),
		netlinkAttribute(5, binary.BigEndian.AppendUint32(nil, 1)),
	} {
		if err := w.configureLog(attribute); err != nil {
			return fmt.Errorf("listening to nflog: %w", err)
		}
	}
	if w.fence, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(swapped(fenceProtocol))); err != nil {
		return err
	}
	limit := unix.NsecToTimeval(int64(time.Minute))
	if err := unix.SetsockoptTimeval(w.fence, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return err
	}
	return unix.Bind(w.fence, &unix.SockaddrLinklayer{Protocol: swapped(fenceProtocol), Ifindex: 1})
}

func swapped(n uint16) uint16 { return n<<8 | n>>8 }

// netlinkAttribute returns an attribute, padded to four bytes.
func netlinkAttribute(kind uint16, data []byte) []byte {
	all := binary.NativeEndian.AppendUint16(nil, uint16(4+len(data)))
	all = append(binary.NativeEndian.AppendUint16(all, kind), data...)
	for len(all)%4 != 0 {
		all = append(all, 0)
	}
	return all
}

const logConfig = unix.NFNL_SUBSYS_ULOG<<8 | 1 // NFULNL_MSG_CONFIG

func (w *wire) configureLog(attribute []byte) error {
	message := binary.NativeEndian.AppendUint32(nil, uint32(20+len(attribute)))
	message = binary.NativeEndian.AppendUint16(message, logConfig)
	message = binary.NativeEndian.AppendUint16(message, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	message = append(message, make([]byte, 8)...)
	message = append(message, unix.AF_UNSPEC, 0, 0, observerGroup)
	if err := unix.Sendto(w.log, append(message, attribute...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buffer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(w.log, buffer, 0)
	if err != nil {
		return err
	}
	if n < 20 || binary.NativeEndian.Uint16(buffer[4:]) != unix.NLMSG_ERROR {
		return fmt.Errorf("an answer of %d bytes", n)
	}
	if code := int32(binary.NativeEndian.Uint32(buffer[16:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

// send sends the packets one after the other and returns when the kernel has handled the last. The
// kernel handles a packet that crosses a link, also lo, in the order of arrival on the sender's CPU.
// So sending stays on one.
func (w *wire) send(shots []shot) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if before.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return err
	}
	defer func() { _ = unix.SchedSetaffinity(0, &before) }()
	for i := range shots {
		shots[i].seen = sighting{}
		if err := w.fire(shots[i].Packet, uint32(i)); err != nil {
			return fmt.Errorf("sending %s: %w", shots[i].Packet, err)
		}
	}
	if err := w.awaitAll(); err != nil {
		return err
	}
	return w.readLog(shots)
}

// awaitAll waits until all that was sent is handled: a frame on lo comes after it.
func (w *wire) awaitAll() error {
	frame := make([]byte, 64)
	binary.BigEndian.PutUint16(frame[12:], fenceProtocol)
	if _, err := unix.Write(w.fence, frame); err != nil {
		return fmt.Errorf("sending the last frame: %w", err)
	}
	for {
		_, from, err := unix.Recvfrom(w.fence, frame, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("waiting for the last frame: %w", err)
		}
		if from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_OUTGOING {
			return nil
		}
	}
}

func (w *wire) fire(p ruleset.Packet, id uint32) error {
	if p.Direction == ruleset.In {
		sender := w.frames[p.Interface]
		frame := append(append([]byte{}, sender.pod[:]...), sender.own[:]...)
		frame = append(binary.BigEndian.AppendUint16(frame, etherType(p.Family)), wireFormat(p, id)...)
		return unix.Sendto(sender.socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: sender.index})
	}
	err := w.lab.Pod.DoAs(netns.Identity{UID: p.UID, GID: p.GID}, func() error { return fireRaw(p, id) })
	// The kernel tells the sender that rules or routes stopped the packet.
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

func etherType(f ruleset.Family) uint16 {
	if f == ruleset.IPv6 {
		return unix.ETH_P_IPV6
	}
	return unix.ETH_P_IP
}

// fireRaw sends a packet from a socket of this thread's namespace and identity.
func fireRaw(p ruleset.Packet, id uint32) error {
	domain, level, option := unix.AF_INET, unix.SOL_IP, unix.IP_TRANSPARENT
	if p.Family == ruleset.IPv6 {
		domain, level, option = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	socket, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	if p.Mark != 0 {
		if err := unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_MARK, int(p.Mark)); err != nil {
			return err
		}
	}
	if p.Interface != "" {
		if err := unix.BindToDevice(socket, p.Interface); err != nil {
			return err
		}
	}
	if err := unix.SetsockoptInt(socket, level, option, 1); err != nil {
		return err
	}
	if p.Src.IsValid() {
		if err := unix.Bind(socket, sockaddr(p.Src)); err != nil {
			return err
		}
	}
	return unix.Sendto(socket, wireFormat(p, id), 0, sockaddr(p.Dst))
}

func sockaddr(addr netip.Addr) unix.Sockaddr {
	if addr.Is4() {
		return &unix.SockaddrInet4{Addr: addr.As4()}
	}
	return &unix.SockaddrInet6{Addr: addr.As16()}
}

// wireFormat returns a packet's bytes from the IP header on. Its tcp sequence number, or its udp data, is
// the id. A source that the kernel chooses is left to it in IPv4; for IPv6 it has to be written here.
func wireFormat(p ruleset.Packet, id uint32) []byte {
	src := p.Src
	if !src.IsValid() {
		src = netip.IPv4Unspecified()
		if p.Family == ruleset.IPv6 {
			src = sourceInIPv6(p.Dst)
		}
	}
	segment, protocol := transport(p, id)
	sum := onesSum(0, src.AsSlice())
	sum = onesSum(sum, p.Dst.AsSlice())
	sum = onesSum(sum, []byte{0, protocol, byte(len(segment) >> 8), byte(len(segment))})
	checksum := ^folded(onesSum(sum, segment))
	if p.State == ruleset.Invalid {
		checksum ^= 0x5555
	}
	if protocol == unix.IPPROTO_TCP {
		binary.BigEndian.PutUint16(segment[16:], checksum)
	} else {
		binary.BigEndian.PutUint16(segment[6:], checksum)
	}
	var header []byte
	if p.Family == ruleset.IPv6 {
		header = append(header, 0x60, 0, 0, 0, 0, byte(len(segment)), protocol, ownTTL)
		header = append(append(header, src.AsSlice()...), p.Dst.AsSlice()...)
	} else {
		header = append(header, 0x45, 0, 0, byte(20+len(segment)), 0, 1, 0x40, 0, ownTTL, protocol, 0, 0)
		header = append(append(header, src.AsSlice()...), p.Dst.AsSlice()...)
		binary.BigEndian.PutUint16(header[10:], ^folded(onesSum(0, header)))
	}
	return append(header, segment...)
}

// sourceInIPv6 returns the source that the kernel of the reference network's pod chooses.
func sourceInIPv6(to netip.Addr) netip.Addr {
	if to.IsLoopback() || Pod.Addresses[1] == to || to == secondIPv6 {
		return to
	}
	return Pod.Addresses[1]
}

var passthrough6, secondIPv6 = netip.MustParseAddr("::6"), netip.MustParseAddr("fd00:1::1")

// Flags of a tcp header.
const (
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
)

// transport returns the header and data of the transport protocol, without the checksum.
func transport(p ruleset.Packet, id uint32) (segment []byte, protocol byte) {
	segment = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, p.SrcPort), p.DstPort)
	if p.Protocol == "udp" {
		return binary.BigEndian.AppendUint32(append(segment, 0, 12, 0, 0), id), unix.IPPROTO_UDP
	}
	flags := byte(flagSYN)
	switch {
	case p.State == ruleset.Invalid:
		flags = flagSYN | flagRST // which no connection has
	case p.Midstream, p.State == ruleset.Established:
		flags = flagACK
	}
	segment = append(binary.BigEndian.AppendUint32(segment, id), 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0)
	return segment, unix.IPPROTO_TCP
}

// onesSum adds 16-bit words (RFC 1071).
func onesSum(sum uint32, data []byte) uint32 {
	for len(data) > 1 {
		sum += uint32(binary.BigEndian.Uint16(data))
		data = data[2:]
	}
	return sum
}

func folded(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// Attributes of a message of nflog (linux/netfilter/nfnetlink_log.h).
const (
	logIndexIn  = 4
	logIndexOut = 5
	logPayload  = 9
	logPrefix   = 10
)

// readLog reads what the observer has reported.
func (w *wire) readLog(shots []shot) error {
	buffer := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(w.log, buffer, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading nflog: %w", err)
		}
		messages, err := nlMessages(buffer[:n])
		if err != nil {
			return fmt.Errorf("reading nflog: %w", err)
		}
		for _, attributes := range messages {
			if err := w.report(shots, attributes); err != nil {
				return err
			}
		}
	}
}

func (w *wire) report(shots []shot, attributes map[uint16][]byte) error {
	found := sighting{there: true}
	for kind, value := range attributes {
		switch kind {
		case logIndexIn:
			found.in = w.names[binary.BigEndian.Uint32(value)]
		case logIndexOut:
			found.out = w.names[binary.BigEndian.Uint32(value)]
		case logPrefix:
			if _, err := fmt.Sscan(cString(value), &found.taken); err != nil {
				return fmt.Errorf("nflog's prefix %q: %w", value, err)
			}
		}
	}
	found.left = found.out != ""
	payload := attributes[logPayload]
	id, to, ok := readWire(payload)
	if !ok {
		return nil // the kernel's own, as neighbour discovery
	}
	if id >= uint32(len(shots)) || shots[id].seen.there {
		return fmt.Errorf("packet %d, which nobody has sent, or which came twice: %x", id, payload)
	}
	found.to = to
	shots[id].seen = found
	return nil
}

// readWire reads the id and the destination of a packet of ours.
func readWire(packet []byte) (id uint32, to netip.AddrPort, ok bool) {
	if len(packet) < 28 {
		return 0, to, false
	}
	var dst netip.Addr
	var protocol, ttl byte
	segment := packet[20:]
	if packet[0]>>4 == 4 {
		ttl, protocol, dst = packet[8], packet[9], netip.AddrFrom4([4]byte(packet[16:]))
	} else if len(packet) >= 48 {
		protocol, ttl, dst, segment = packet[6], packet[7], netip.AddrFrom16([16]byte(packet[24:])), packet[40:]
	}
	if (ttl != ownTTL && ttl != ownTTL-1) || len(segment) < 12 {
		return 0, to, false
	}
	to = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(segment[2:]))
	if protocol == unix.IPPROTO_UDP {
		return binary.BigEndian.Uint32(segment[8:]), to, true
	}
	return binary.BigEndian.Uint32(segment[4:]), to, protocol == unix.IPPROTO_TCP
}
