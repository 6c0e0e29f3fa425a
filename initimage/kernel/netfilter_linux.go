package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/nft"
)

// netfilterSocket is a socket to netfilter, which answers before sending returns.
// So it blocks: a socket that Go's runtime polls takes a third more CPU time of a
// whole run, most of it to wake threads.
type netfilterSocket int

func openNetfilter() (netfilterSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return -1, fmt.Errorf("opening a socket to netfilter: %w", err)
	}
	return netfilterSocket(fd), nil
}

func (s netfilterSocket) close() { _ = unix.Close(int(s)) }

func (s netfilterSocket) send(data []byte) error {
	return unix.Sendto(int(s), data, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// answerBuffers are for what the kernel says at once, which is 32 KiB at most.
// Garbage is not collected, so they are used again.
var answerBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// receive gives each message that the kernel has sent to a function, whose argument
// is valid until it returns.
func (s netfilterSocket) receive(flags int, take func(message []byte) error) error {
	buffer := answerBuffers.Get().(*[64 << 10]byte)
	defer answerBuffers.Put(buffer)
	n, _, err := unix.Recvfrom(int(s), buffer[:], flags|unix.MSG_TRUNC)
	for errors.Is(err, unix.EINTR) {
		n, _, err = unix.Recvfrom(int(s), buffer[:], flags|unix.MSG_TRUNC)
	}
	if err != nil {
		return err
	}
	if n > len(buffer) {
		return fmt.Errorf("an answer of %d bytes", n)
	}
	for rest := buffer[:n]; len(rest) >= unix.SizeofNlMsghdr; {
		size := int(binary.NativeEndian.Uint32(rest))
		if size < unix.SizeofNlMsghdr || size > len(rest) {
			return fmt.Errorf("a message of %d bytes in %d", size, len(rest))
		}
		if err := take(rest[:size]); err != nil {
			return err
		}
		rest = rest[min(len(rest), aligned(size)):]
	}
	return nil
}

// aligned is a size with the padding that follows.
func aligned(size int) int { return (size + unix.NLA_ALIGNTO - 1) &^ (unix.NLA_ALIGNTO - 1) }

// dumpAttempts is how often a list is asked for that changes while the kernel puts
// it together.
const dumpAttempts = 20

// answer is one message of netfilter, without the header of netlink.
type answer []byte

// family is the one of nf_tables that the message is about.
func (a answer) family() nftables.TableFamily { return nftables.TableFamily(a[0]) }

func (a answer) attributes() attributeMap { return attributes(a[nl.SizeofNfgenmsg:]) }

// askNFTables sends one question to nf_tables. fill adds its attributes.
func askNFTables(message int, flags uint16, family nftables.TableFamily, fill func(*batch)) (answers []answer, err error) {
	socket, err := openNetfilter()
	if err != nil {
		return nil, err
	}
	defer socket.close()
	question := &batch{}
	question.begin(uint16(unix.NFNL_SUBSYS_NFTABLES<<8|message), flags, byte(family), 0)
	fill(question)
	question.end(0)
	for range dumpAttempts {
		if err := socket.send(question.data); err != nil {
			return nil, err
		}
		if answers, err = socket.answers(flags&unix.NLM_F_DUMP != 0); !errors.Is(err, errInterrupted) {
			break
		}
	}
	return answers, err
}

// errInterrupted is the error of a list that has changed in the meantime.
var errInterrupted = errors.New("the list changes all the time")

// answers reads an answer of one message, or a list up to its end.
func (s netfilterSocket) answers(isList bool) (all []answer, err error) {
	interrupted := false
	for done := false; !done; {
		err := s.receive(0, func(message []byte) error {
			kind, flags := binary.NativeEndian.Uint16(message[4:]), binary.NativeEndian.Uint16(message[6:])
			interrupted = interrupted || flags&unix.NLM_F_DUMP_INTR != 0
			body := message[unix.SizeofNlMsghdr:]
			switch {
			case kind == unix.NLMSG_ERROR || kind == unix.NLMSG_DONE:
				done = true
				if errno := -int32(nft.Native(body[:min(4, len(body))])); errno != 0 {
					return unix.Errno(errno)
				}
			case len(body) < nl.SizeofNfgenmsg:
				return fmt.Errorf("a message of %d bytes", len(body))
			default:
				all = append(all, append(answer(nil), body...))
				done = !isList
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if interrupted {
		return nil, errInterrupted
	}
	return all, nil
}

// attributeMap holds netlink attributes by their type. Those that are read have
// numbers below its length.
type attributeMap [16][]byte

// attributes returns netlink attributes by their type; none if they do not parse.
func attributes(data []byte) (all attributeMap) {
	parses := eachAttribute(data, func(kind uint16, value []byte) {
		if int(kind) < len(all) {
			all[kind] = value
		}
	})
	if !parses {
		return attributeMap{}
	}
	return all
}

// list returns the elements of a nested list of attributes.
func list(data []byte) (all [][]byte) {
	if !eachAttribute(data, func(_ uint16, value []byte) { all = append(all, value) }) {
		return nil
	}
	return all
}

// eachAttribute reports whether the attributes parse.
func eachAttribute(data []byte, take func(kind uint16, value []byte)) bool {
	for len(data) >= unix.SizeofNlAttr {
		size := int(binary.NativeEndian.Uint16(data))
		if size < unix.SizeofNlAttr || size > len(data) {
			return false
		}
		take(binary.NativeEndian.Uint16(data[2:])&nl.NLA_TYPE_MASK, data[unix.SizeofNlAttr:size:size])
		data = data[min(len(data), aligned(size)):]
	}
	return true
}
