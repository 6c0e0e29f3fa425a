//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/kernel"
)

// sharedProgram is the path of this program in the folder that the init container
// shares with the proxy's.
const sharedProgram = "shunt-init"

const (
	programMode = 0o555
	fileMode    = 0o444
)

// shared is what the proxy's container needs from this one, besides this program.
type shared struct {
	resolvers []netip.Addr // of the pod, if there are any
	bootstrap []byte       // of Envoy; nil for another proxy
}

// share leaves in a folder what the proxy's container needs from this one. It
// deletes what an earlier run left and is no longer needed. Its errors are
// kernel.ErrPreflight.
func share(dir string, s shared) error {
	resolvers := []byte(nil)
	if len(s.resolvers) > 0 {
		resolvers = envoy.Resolvers(s.resolvers)
	}
	err := leaveProgram(filepath.Join(dir, sharedProgram))
	for _, file := range []struct {
		name string
		text []byte
	}{{envoy.ResolversFile, resolvers}, {envoy.BootstrapFile, s.bootstrap}} {
		path := filepath.Join(dir, file.name)
		switch {
		case err != nil:
		case file.text == nil:
			err = remove(path)
		default:
			err = replaceFile(path, io.NewSectionReader(bytes.NewReader(file.text), 0, int64(len(file.text))), fileMode)
		}
	}
	if err != nil {
		return fmt.Errorf("%w: --share %s: %w; accepted: an existing, writable folder", kernel.ErrPreflight, dir, err)
	}
	return nil
}

func leaveProgram(path string) error {
	program, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("reading this program: %w", err)
	}
	defer program.Close()
	info, err := program.Stat()
	if err != nil {
		return fmt.Errorf("reading this program: %w", err)
	}
	return replaceFile(path, io.NewSectionReader(program, 0, info.Size()), programMode)
}

// replaceFile gives a file its content and mode in one step, so that a reader sees
// the old file or the new one, whole. It does not touch a file that is right
// already.
func replaceFile(path string, content *io.SectionReader, mode fs.FileMode) error {
	same, err := holds(path, content, mode)
	if err != nil || same {
		return err
	}
	// A container's first process always has the same number, so the next run finds
	// and replaces what a killed one has left.
	temporary := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%d", filepath.Base(path), os.Getpid()))
	if err := remove(temporary); err != nil {
		return err
	}
	if err := write(temporary, content, mode); err != nil {
		return errors.Join(err, remove(temporary))
	}
	if err := os.Rename(temporary, path); err != nil {
		return errors.Join(fmt.Errorf("putting a file in its place: %w", err), remove(temporary))
	}
	return nil
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing a file of an earlier run: %w", err)
	}
	return nil
}

func write(path string, content io.Reader, mode fs.FileMode) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("making a file: %w", err)
	}
	_, err = io.Copy(file, content)
	// The umask clears bits of the mode that a file is created with.
	if err = errors.Join(err, file.Chmod(mode), file.Close()); err != nil {
		return fmt.Errorf("writing a file: %w", err)
	}
	return nil
}

// holds reports whether a file exists with this content and mode.
func holds(path string, content *io.SectionReader, mode fs.FileMode) (bool, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (info.Mode() != mode || info.Size() != content.Size()) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking at what is there: %w", err)
	}
	file, err := os.Open(path)
	if err != nil {
		return false, fmt.Errorf("reading what is there: %w", err)
	}
	defer file.Close()
	return equal(file, io.NewSectionReader(content, 0, content.Size()))
}

// equal reports whether two readers of the same length have the same content.
func equal(a, b io.Reader) (bool, error) {
	const chunk = 1 << 16
	ofA, ofB := make([]byte, chunk), make([]byte, chunk)
	for {
		n, errA := io.ReadFull(a, ofA)
		m, errB := io.ReadFull(b, ofB)
		if !bytes.Equal(ofA[:n], ofB[:m]) {
			return false, nil
		}
		for _, err := range []error{errA, errB} {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return true, nil
			}
			if err != nil {
				return false, fmt.Errorf("comparing with what is there: %w", err)
			}
		}
	}
}
