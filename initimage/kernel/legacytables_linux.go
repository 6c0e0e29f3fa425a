package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// legacyTables returns the legacy tables of this namespace that hold anything: a
// rule, or a policy other than ACCEPT. An empty table says nothing: listing a table
// creates it, and nobody can delete it again.
//
// Root may not read the file if the namespace belongs to another user namespace, as
// that of a pod with hostUsers: false does to the node's agent, which has no
// DAC_READ_SEARCH. Then legacy tables are taken for missing: the probes show whether
// rules of others are in the way.
func legacyTables(family ruleset.Family) ([]string, error) {
	file := "/proc/thread-self/net/ip_tables_names"
	if family == ruleset.IPv6 {
		file = "/proc/thread-self/net/ip6_tables_names"
	}
	text, err := readProc(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) && os.Geteuid() == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for legacy tables: %w", err)
	}
	var names []string
	for _, name := range strings.Fields(string(text)) {
		empty, err := legacyTableEmpty(family, name)
		if err != nil {
			return nil, fmt.Errorf("looking into the legacy table %s: %w", name, err)
		}
		if !empty {
			names = append(names, name)
		}
	}
	return names, nil
}

// Values of linux/netfilter_ipv4/ip_tables.h and linux/netfilter_ipv6/ip6_tables.h,
// which use the same numbers.
const (
	getInfo    = 64 // IPT_SO_GET_INFO
	getEntries = 65 // IPT_SO_GET_ENTRIES

	tableNameSize = 32 // XT_TABLE_MAXNAMELEN
	entriesOffset = 40 // of struct ipt_get_entries: the name and a size, padded to a multiple of 8
	targetSize    = 32 // struct xt_entry_target; a verdict follows it
	entrySize4    = 112
	entrySize6    = 168
)

// verdictAccept is NF_ACCEPT as it is stored in a rule.
const verdictAccept int32 = -1 - 1

// tableInfo is struct ipt_getinfo.
type tableInfo struct {
	Name                    [tableNameSize]byte
	ValidHooks              uint32
	HookEntries, Underflows [5]uint32
	Entries, Size           uint32
}

// legacyTableEmpty reports whether a table has only the policies of its hooks, all
// ACCEPT. Unlike iptables-legacy it needs no NET_RAW: any socket will do.
func legacyTableEmpty(family ruleset.Family, name string) (bool, error) {
	domain, level, entrySize := unix.AF_INET, unix.SOL_IP, entrySize4
	if family == ruleset.IPv6 {
		domain, level, entrySize = unix.AF_INET6, unix.SOL_IPV6, entrySize6
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	var info tableInfo
	question := make([]byte, binary.Size(info))
	copy(question, name)
	if err := getsockopt(fd, level, getInfo, question); err != nil {
		return false, err
	}
	if _, err := binary.Decode(question, binary.NativeEndian, &info); err != nil {
		return false, err
	}
	// Each hook ends with a rule for its policy, and the table with an error entry.
	if int(info.Entries) != bits.OnesCount32(info.ValidHooks)+1 {
		return false, nil
	}
	entries := make([]byte, entriesOffset+int(info.Size))
	copy(entries, name)
	binary.NativeEndian.PutUint32(entries[tableNameSize:], info.Size)
	if err := getsockopt(fd, level, getEntries, entries); err != nil {
		if errors.Is(err, unix.EAGAIN) { // somebody has just changed it
			return false, nil
		}
		return false, err
	}
	for hook, at := range info.HookEntries {
		if info.ValidHooks&(1<<hook) == 0 {
			continue
		}
		verdict := entriesOffset + int(at) + entrySize + targetSize
		if verdict+4 > len(entries) || int32(binary.NativeEndian.Uint32(entries[verdict:])) != verdictAccept {
			return false, nil
		}
	}
	return true, nil
}

// getsockopt sends the question in the buffer, and overwrites it with the answer.
func getsockopt(fd, level, option int, buffer []byte) error {
	size := uint32(len(buffer))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(unsafe.SliceData(buffer))), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return os.NewSyscallError("getsockopt", errno)
	}
	return nil
}
