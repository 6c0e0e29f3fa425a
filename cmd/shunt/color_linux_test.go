package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestColor has the program write a diff to a terminal and to a pipe.
func TestColor(t *testing.T) {
	const pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: app\n"
	for _, test := range []struct {
		when, noColor, term string
		terminal, want      bool
	}{
		{when: "auto", term: "xterm", terminal: true, want: true},
		{when: "auto", term: "xterm", terminal: true, noColor: "1"},
		{when: "auto", term: "dumb", terminal: true},
		{when: "auto", term: "xterm"},
		{when: "always", term: "dumb", noColor: "1", want: true},
		{when: "never", term: "xterm", terminal: true},
	} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			t.Setenv("NO_COLOR", test.noColor)
			t.Setenv("TERM", test.term)
			reader, stdout := pipe(t)
			if test.terminal {
				reader, stdout = terminal(t)
			}
			ended := make(chan error, 1)
			go func() {
				ended <- run(t.Context(), "shunt", []string{"inject", "-f", "-", "-o", "diff", "--color", test.when},
					strings.NewReader(pod), stdout, io.Discard)
			}()
			header := make([]byte, len("\x1b[1m--- stdin"))
			if err := reader.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(reader, header); err != nil {
				t.Fatal(err)
			}
			if got := bytes.HasPrefix(header, []byte("\x1b[1m--- stdin")); got != test.want {
				t.Errorf("coloured is %v: %q", got, header)
			}
			go func() { _, _ = io.Copy(io.Discard, reader) }()
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
		})
	}
}

func pipe(t *testing.T) (reader, writer *os.File) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = writer.Close(), reader.Close() })
	return reader, writer
}

// terminal is a new one, and what it shows.
func terminal(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	open := func(name string) *os.File {
		file, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = file.Close() })
		return file
	}
	screen = open("/dev/ptmx")
	control, err := screen.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	number := -1
	if err := control.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); err != nil || number < 0 {
		t.Fatalf("no terminal: %v", err)
	}
	return screen, open(fmt.Sprintf("/dev/pts/%d", number))
}
