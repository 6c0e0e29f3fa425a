package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/nft"
)

// batch is a transaction of nf_tables, put together message by message. The kernel
// carries out all of it or nothing, and no packet meets anything between.
//
// It is sent here because google/nftables v0.3.0 does not tell which message an
// error is about, and asks for an answer to each: if the answers exceed the socket's
// buffer, it reports an error of a transaction that was carried out.
type batch struct {
	data  []byte
	parts []batchPart
}

// batchPart is one message of a batch.
type batchPart struct {
	what        string // what it makes, for errors
	start       int    // in data
	expressions []expression
}

// expression is one of a rule's, at some place of its message.
type expression struct {
	name     string
	from, to int
}

// add begins a message. What follows adds its attributes.
func (b *batch) add(what string, message uint16, family byte, flags uint16) {
	b.parts = append(b.parts, batchPart{what: what, start: len(b.data)})
	b.begin(unix.NFNL_SUBSYS_NFTABLES<<8|message, flags, family, 0)
}

// begin writes the headers of a message, whose size end writes.
func (b *batch) begin(kind, flags uint16, family byte, resource uint16) {
	b.data = binary.NativeEndian.AppendUint32(b.data, 0)
	b.data = binary.NativeEndian.AppendUint16(b.data, kind)
	b.data = binary.NativeEndian.AppendUint16(b.data, unix.NLM_F_REQUEST|flags)
	b.data = binary.NativeEndian.AppendUint32(b.data, uint32(len(b.parts))) // the sequence number
	b.data = binary.NativeEndian.AppendUint32(b.data, 0)
	b.data = append(b.data, family, unix.NFNETLINK_V0)
	b.data = binary.BigEndian.AppendUint16(b.data, resource)
}

// end writes the size of the message that began at some place.
func (b *batch) end(start int) {
	binary.NativeEndian.PutUint32(b.data[start:], uint32(len(b.data)-start))
}

// attr adds an attribute.
func (b *batch) attr(kind uint16, value []byte) {
	b.data = binary.NativeEndian.AppendUint16(b.data, uint16(unix.SizeofNlAttr+len(value)))
	b.data = binary.NativeEndian.AppendUint16(b.data, kind)
	b.data = append(b.data, value...)
	for len(b.data)%unix.NLA_ALIGNTO != 0 {
		b.data = append(b.data, 0)
	}
}

func (b *batch) text(kind uint16, value string) { b.attr(kind, append([]byte(value), 0)) }

func (b *batch) number(kind uint16, value uint32) {
	b.attr(kind, binary.BigEndian.AppendUint32(nil, value))
}

// nest adds an attribute that consists of others.
func (b *batch) nest(kind uint16, fill func()) {
	start := len(b.data)
	b.attr(kind|unix.NLA_F_NESTED, nil)
	fill()
	binary.NativeEndian.PutUint16(b.data[start:], uint16(len(b.data)-start))
}

// commit has the kernel carry the batch out.
func (b *batch) commit() error {
	if len(b.parts) == 0 {
		return nil
	}
	socket, err := openNetfilter()
	if err != nil {
		return err
	}
	defer socket.close()
	return b.send(socket, 0)
}

// try has the kernel check the batch as it would on carrying it out, and changes
// nothing: the last message is a question, for which the kernel takes the whole
// batch back.
func (b *batch) try() error {
	socket, err := openNetfilter()
	if err != nil {
		return err
	}
	defer socket.close()
	b.add("", unix.NFT_MSG_GETGEN, unix.AF_UNSPEC, 0)
	err = b.send(socket, len(b.parts))
	b.parts = b.parts[:len(b.parts)-1]
	return err
}

// send sends the batch and returns what the kernel says to it, but not to the
// question with some number.
func (b *batch) send(socket netfilterSocket, question int) error {
	socket.prepareForBatch()
	if err := socket.send(b.framed()); err != nil {
		return fmt.Errorf("sending a transaction of %d bytes to nf_tables: %w", len(b.data), err)
	}
	return b.answers(socket, question)
}

// framed returns the messages between those that begin and end a batch. The kernel
// answers the last one, and all that fail.
func (b *batch) framed() []byte {
	whole := &batch{}
	whole.begin(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	whole.end(0)
	offset := len(whole.data)
	whole.data = append(whole.data, b.data...)
	for i, p := range b.parts {
		next := len(b.data)
		if i+1 < len(b.parts) {
			next = b.parts[i+1].start
		} else {
			flags := whole.data[offset+p.start+6:]
			binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
		}
		binary.NativeEndian.PutUint32(whole.data[offset+p.start:], uint32(next-p.start))
	}
	start := len(whole.data)
	whole.begin(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	whole.end(start)
	return whole.data
}

// batchMemory is the size of the socket's buffers. The kernel takes a transaction
// as one message: 10,000 prefixes of IPv6 are 1 MB.
const batchMemory = 16 << 20

// prepareForBatch gives a socket large buffers, and asks for errors in words. The
// kernel refuses large buffers to a root that is one in its own user namespace only;
// then long lists do not fit.
func (s netfilterSocket) prepareForBatch() {
	for forced, option := range map[int]int{unix.SO_SNDBUFFORCE: unix.SO_SNDBUF, unix.SO_RCVBUFFORCE: unix.SO_RCVBUF} {
		if unix.SetsockoptInt(int(s), unix.SOL_SOCKET, forced, batchMemory) != nil {
			_ = unix.SetsockoptInt(int(s), unix.SOL_SOCKET, option, batchMemory)
		}
	}
	for _, option := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK} {
		_ = unix.SetsockoptInt(int(s), unix.SOL_NETLINK, option, 1) // older kernels say less
	}
}

// answers reads what the kernel has answered.
func (b *batch) answers(socket netfilterSocket, question int) error {
	var errs []error
	done := false
	for {
		err := socket.receive(unix.MSG_DONTWAIT, func(message []byte) error {
			number := int(binary.NativeEndian.Uint32(message[8:]))
			err := b.answer(message, number)
			switch {
			case number == question && question > 0 && err != nil:
				done = true
			case err != nil:
				errs = append(errs, err)
			case number == len(b.parts):
				done = true
			}
			return nil
		})
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading the answer of nf_tables: %w", err)
		}
	}
	if len(errs) == 0 && !done {
		errs = append(errs, errors.New("nf_tables did not answer"))
	}
	return errors.Join(errs...)
}

// wholeBatch is what an error is about that no message has caused.
const wholeBatch = "the transaction"

// batchError is what the kernel says of one message.
type batchError struct {
	errno      unix.Errno
	what       string
	expression string // of a rule, which the kernel does not take; "" if it did not tell
	said       string // by the kernel, in words
}

// failuresOf returns all that the kernel has said of a batch.
func failuresOf(err error) []*batchError {
	var joined interface{ Unwrap() []error }
	var one *batchError
	switch {
	case errors.As(err, &joined):
		var all []*batchError
		for _, e := range joined.Unwrap() {
			all = append(all, failuresOf(e)...)
		}
		return all
	case errors.As(err, &one):
		return []*batchError{one}
	}
	return nil
}

func (e *batchError) Error() string {
	text := e.what
	if e.expression != "" {
		text += ", expression " + e.expression
	}
	if e.said != "" {
		return fmt.Sprintf("%s: %s (%s)", text, e.errno, e.said)
	}
	return fmt.Sprintf("%s: %s", text, e.errno)
}

func (e *batchError) Unwrap() error { return e.errno }

// Parts of an answer (linux/netlink.h).
const (
	answerHeader   = unix.SizeofNlMsghdr + 4 + unix.SizeofNlMsghdr // with the error, and the header of the message
	answerMessage  = 1                                             // NLMSGERR_ATTR_MSG
	answerOffset   = 2                                             // NLMSGERR_ATTR_OFFS
	flagAnswerTLVs = 0x200                                         // NLM_F_ACK_TLVS
)

// answer reads one message of the kernel: nil for an acknowledgement.
func (b *batch) answer(message []byte, number int) error {
	if binary.NativeEndian.Uint16(message[4:]) != unix.NLMSG_ERROR || len(message) < unix.SizeofNlMsghdr+4 {
		return nil
	}
	errno := -int32(binary.NativeEndian.Uint32(message[unix.SizeofNlMsghdr:]))
	if errno == 0 {
		return nil
	}
	failed := &batchError{errno: unix.Errno(errno), what: wholeBatch}
	if number < 1 || number > len(b.parts) {
		return failed
	}
	part := b.parts[number-1]
	failed.what = part.what
	if binary.NativeEndian.Uint16(message[6:])&flagAnswerTLVs == 0 || len(message) < answerHeader {
		return failed
	}
	attrs := attributes(message[answerHeader:])
	failed.said = text(attrs[answerMessage])
	if place := nft.Native(attrs[answerOffset]); place > 0 {
		for _, e := range part.expressions {
			if e.from <= int(place) && int(place) < e.to {
				failed.expression = e.name
			}
		}
	}
	return failed
}
