package interception

import (
	"errors"
	"strconv"
	"strings"
)

const acceptedIDs = "numeric ids from 0 to 4294967294, separated by commas"

// maxID is the largest uid and gid: 2^32-1 means "no id" to the kernel (chown(2)).
const maxID = 1<<32 - 2

// splitList splits a text at its commas and trims each word. An empty text is an
// empty list. An empty word in a longer text is an error: a stray comma means that
// a value is missing.
func splitList(text, accepted string) ([]string, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	words := strings.Split(text, ",")
	for i, word := range words {
		words[i] = strings.TrimSpace(word)
		if words[i] == "" {
			return nil, &ValueError{Value: text, Reason: "an element of the list is empty", Accepted: accepted}
		}
	}
	return words, nil
}

// accepting returns err with its list of accepted values replaced.
func accepting(err error, accepted string) error {
	var ve *ValueError
	if !errors.As(err, &ve) {
		return err
	}
	return &ValueError{Value: ve.Value, Reason: ve.Reason, Accepted: accepted}
}

// ParseIDs reads numeric user or group ids separated by commas, and drops
// repetitions. It refuses names: the init image has no user database.
func ParseIDs(text string) ([]uint32, error) {
	words, err := splitList(text, acceptedIDs)
	if err != nil {
		return nil, err
	}
	var ids []uint32
	seen := map[uint32]bool{}
	for _, word := range words {
		n, err := strconv.ParseUint(word, 10, 32)
		if err != nil || n > maxID || !isDecimal(word) {
			return nil, &ValueError{Value: word, Accepted: acceptedIDs}
		}
		if id := uint32(n); !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func formatIDs(ids []uint32) string {
	words := make([]string, len(ids))
	for i, id := range ids {
		words[i] = strconv.FormatUint(uint64(id), 10)
	}
	return strings.Join(words, ",")
}

// Groups selects processes by their group: all of them, or those in IDs.
type Groups struct {
	All bool
	IDs []uint32 // nil if All is set
}

// String prints the selection as ParseGroups reads it.
func (g Groups) String() string {
	if g.All {
		return wildcard
	}
	return formatIDs(g.IDs)
}

// ParseGroups reads "*" as all groups and anything else as ParseIDs does.
func ParseGroups(text string) (Groups, error) {
	if strings.TrimSpace(text) == wildcard {
		return Groups{All: true}, nil
	}
	ids, err := ParseIDs(text)
	if err != nil {
		return Groups{}, accepting(err, "* for all, an empty value for none, or "+acceptedIDs)
	}
	return Groups{IDs: ids}, nil
}

// maxInterfaceName is IFNAMSIZ of linux/if.h minus its terminating zero.
const maxInterfaceName = 15

const acceptedInterfaces = "network interface names of at most 15 characters, separated by commas; a + at the end stands for any ending"

// ParseInterfaces reads names of network interfaces separated by commas, and drops
// repetitions.
func ParseInterfaces(text string) ([]string, error) {
	words, err := splitList(text, acceptedInterfaces)
	if err != nil {
		return nil, err
	}
	var names []string
	seen := map[string]bool{}
	for _, word := range words {
		if !validInterface(word) {
			return nil, &ValueError{Value: word, Accepted: acceptedInterfaces}
		}
		if !seen[word] {
			seen[word] = true
			names = append(names, word)
		}
	}
	return names, nil
}

// validInterface applies the kernel's dev_valid_name, restricted to the characters
// that iptables-save prints unquoted.
func validInterface(name string) bool {
	stem := strings.TrimSuffix(name, "+")
	if stem == "" || len(name) > maxInterfaceName || stem == "." || stem == ".." {
		return false
	}
	return !strings.ContainsFunc(stem, func(r rune) bool {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !alnum && !strings.ContainsRune("-_.@", r)
	})
}
