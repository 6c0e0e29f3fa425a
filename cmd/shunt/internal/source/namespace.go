package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/initimage/dump"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// namespace is a pod of this machine: its network namespace.
type namespace struct {
	path string
	pid  *int
}

func (n *namespace) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&n.path, "netns", "", "network namespace of this machine, a `path` such as /run/netns/NAME "+
		"or /proc/1234/ns/net (Linux, root)")
	flags.Func("pid", "`process` of this machine, whose network namespace is read (Linux, root)", func(text string) error {
		number, err := strconv.Atoi(text)
		if err != nil || number < 1 {
			return fmt.Errorf("invalid value %q; accepted: the id of a process", text)
		}
		n.pid = &number
		return nil
	})
}

func (n *namespace) name() string {
	if n.pid != nil && n.path == "" {
		return "--pid"
	}
	return "--netns"
}

func (n *namespace) given() bool { return n.path != "" || n.pid != nil }

func (n *namespace) check() error {
	switch {
	case n.path != "" && n.pid != nil:
		return fmt.Errorf("--netns with --pid; accepted: one of them")
	case n.path != "" && !strings.HasPrefix(n.path, "/"):
		return fmt.Errorf("--netns: invalid value %q; accepted: an absolute path, such as /run/netns/NAME", n.path)
	}
	return nil
}

// UnaskedError wraps an error because of which a namespace or a cluster could not
// be asked.
type UnaskedError struct{ error }

// Unwrap returns the error.
func (e *UnaskedError) Unwrap() error { return e.error }

func (n *namespace) read(ctx context.Context, streams Streams) ([]trace.Pod, error) {
	path := n.path
	if n.pid != nil {
		path = fmt.Sprintf("/proc/%d/ns/net", *n.pid)
	}
	if streams.Live.IsValid() {
		fmt.Fprintf(streams.Stderr, "making one tcp connection to %s, from %s, as this user\n", streams.Live, path)
	}
	text, err := dumpOf(ctx, path, streams.Live)
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w; entering a namespace takes root (SYS_ADMIN), and reading it NET_ADMIN", err)
	}
	if err != nil {
		return nil, &UnaskedError{fmt.Errorf("%s: %w", n.name(), err)}
	}
	pod, notes, err := readText(path, text, streams.Live.IsValid())
	if err != nil {
		return nil, err
	}
	if pod.Live != nil {
		pod.Live.LogUnread = "a namespace does not say where it is; --pod knows"
	}
	printNotes(streams.Stderr, path, notes)
	return []trace.Pod{pod}, nil
}

// readText reads one dump, or two with a connection between them.
func readText(name, text string, live bool) (trace.Pod, []string, error) {
	if live {
		return dump.ReadLive(name, text)
	}
	return dump.Read(name, []dump.File{{Name: name, Text: text}})
}
