package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/initimage/dump"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// dumps are pods whose programs have printed what they have.
type dumps struct{ names []string }

func (d *dumps) addFlags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&d.names, "dump", nil,
		"what iptables-save, nft -j list ruleset, ip rule, ip route and ip addr print in a pod: a file, a folder of files, or - for "+
			"stdin; can be repeated, for several pods")
}

func (d *dumps) name() string { return "--dump" }

func (d *dumps) given() bool { return len(d.names) > 0 }

func (d *dumps) check() error { return nil }

func (d *dumps) read(_ context.Context, streams Streams) ([]trace.Pod, error) {
	var pods []trace.Pod
	for _, name := range d.names {
		files, err := dumpFiles(name, streams.Stdin)
		if err != nil {
			return nil, err
		}
		pod, notes, err := dump.Read(name, files)
		if err != nil {
			return nil, err
		}
		printNotes(streams.Stderr, name, notes)
		pods = append(pods, pod)
	}
	return pods, nil
}

func printNotes(stderr io.Writer, name string, notes []string) {
	for _, note := range notes {
		fmt.Fprintf(stderr, "%s: %s\n", name, note)
	}
}

// maxDump bounds what is read of a dump: that of a node with ten thousand services
// has 10 MB.
const maxDump = 64 << 20

// dumpFiles reads a file, or every file of a folder.
func dumpFiles(name string, stdin io.Reader) ([]dump.File, error) {
	if name == "-" {
		text, err := readDump(stdin, name)
		return []dump.File{{Name: "stdin", Text: text}}, err
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("--dump: %w", err)
	}
	paths := []string{name}
	if info.IsDir() {
		if paths, err = filesIn(name); err != nil {
			return nil, err
		}
	}
	var files []dump.File
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("--dump: %w", err)
		}
		text, err := readDump(file, path)
		_ = file.Close()
		if err != nil {
			return nil, err
		}
		files = append(files, dump.File{Name: path, Text: text})
	}
	return files, nil
}

// filesIn returns the files of a folder in the order of their names, without those
// that are hidden.
func filesIn(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("--dump: %w", err)
	}
	var paths []string
	for _, entry := range entries {
		if !entry.IsDir() && !strings.HasPrefix(entry.Name(), ".") {
			paths = append(paths, filepath.Join(folder, entry.Name()))
		}
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("--dump: %s: no file in it; accepted: a folder of files, or a file", folder)
	}
	return paths, nil
}

func readDump(from io.Reader, name string) (string, error) {
	text, err := io.ReadAll(io.LimitReader(from, maxDump+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("--dump: reading %s: %w", name, err)
	case len(text) > maxDump:
		return "", errors.New("--dump: " + name + ": larger than 64 MiB; accepted: what the programs print in one pod")
	}
	return string(text), nil
}
