package kernel

import (
	"encoding/binary"
	"errors"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// reply is one message of the kernel.
type reply struct {
	kind, flags uint16
	body        []byte
}

// TestAnswers reads answers as the kernel gives them, and as it does not.
func TestAnswers(t *testing.T) {
	message, end := reply{0xa00, unix.NLM_F_MULTI, make([]byte, 12)}, reply{unix.NLMSG_DONE, unix.NLM_F_MULTI, make([]byte, 4)}
	changed := reply{unix.NLMSG_DONE, unix.NLM_F_MULTI | unix.NLM_F_DUMP_INTR, make([]byte, 4)}
	errno := unix.ENOENT
	failed := binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno)))
	var anyOther error = &strconv.NumError{} // stands for every one
	for name, test := range map[string]struct {
		sent   [][]reply // at once each
		isList bool
		want   int
		err    error
	}{
		"one message":            {[][]reply{{message}}, false, 1, nil},
		"an empty list":          {[][]reply{{end}}, true, 0, nil},
		"a list":                 {[][]reply{{message, message, end}}, true, 2, nil},
		"a list in parts":        {[][]reply{{message, message}, {message}, {end}}, true, 3, nil},
		"a list that changes":    {[][]reply{{message}, {changed}}, true, 0, errInterrupted},
		"an error":               {[][]reply{{{unix.NLMSG_ERROR, 0, failed}}}, false, 0, errno},
		"an error of a list":     {[][]reply{{message}, {{unix.NLMSG_DONE, 0, failed}}}, true, 0, errno},
		"an end without a code":  {[][]reply{{{unix.NLMSG_DONE, 0, nil}}}, true, 0, nil},
		"a message without head": {[][]reply{{{0xa00, 0, make([]byte, 2)}}}, false, 0, anyOther},
		"more than the buffer":   {[][]reply{{{0xa00, 0, make([]byte, 65<<10)}}}, false, 0, anyOther},
	} {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, together := range test.sent {
			var data []byte
			for _, r := range together {
				data = binary.NativeEndian.AppendUint32(data, uint32(unix.SizeofNlMsghdr+len(r.body)))
				data = binary.NativeEndian.AppendUint16(data, r.kind)
				data = binary.NativeEndian.AppendUint16(data, r.flags)
				data = append(append(data, make([]byte, 8)...), r.body...)
			}
			if err := unix.Sendto(fds[0], data, 0, nil); err != nil {
				t.Fatal(err)
			}
		}
		got, err := netfilterSocket(fds[1]).answers(test.isList)
		if len(got) != test.want || (err == nil) != (test.err == nil) || !errors.Is(test.err, anyOther) && !errors.Is(err, test.err) {
			t.Errorf("%s: %d messages, %v; want %d, %v", name, len(got), err, test.want, test.err)
		}
		_ = errors.Join(unix.Close(fds[0]), unix.Close(fds[1]))
	}
}

// TestAttributesThatDoNotParse reads attributes that nobody should have written.
func TestAttributesThatDoNotParse(t *testing.T) {
	good := []byte{8, 0, 1, 0, 'a', 'b', 'c', 0}
	if got := attributes(good); string(got[1]) != "abc\x00" {
		t.Errorf("%q", got[1])
	}
	if got := attributes([]byte{5, 0, 15, 0x80, 'a'}); string(got[15]) != "a" { // nested, and without padding
		t.Errorf("%q", got[15])
	}
	for _, bad := range [][]byte{{3, 0, 1, 0}, {9, 0, 1, 0, 'a', 'b', 'c', 0}, append(append([]byte{}, good...), 200, 0, 2, 0, 0)} {
		if got := attributes(bad); got[1] != nil || list(bad) != nil {
			t.Errorf("%v: %q, %q", bad, got[1], list(bad))
		}
	}
	if got := attributes(append([]byte{5, 0, 99, 0, 0, 0, 0, 0}, good...)); string(got[1]) != "abc\x00" {
		t.Error("an attribute without a place")
	}
}
