package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// kept matches what the init image has of its packages: iptables with both
// backends for both families; all its extensions, since rules of others have
// to be read, and restored when a change fails; the libraries; the licences;
// and which Debian it is, for vulnerability scanners.
var kept = regexp.MustCompile(`^(` + strings.Join([]string{
	`usr/sbin/(ip6?tables-(nft|legacy)(-save|-restore)?|xtables-(nft|legacy)-multi)`,
	`usr/lib/[^/]+/xtables/lib(xt|ipt|ip6t)_[^/]+\.so`,
	`usr/lib/[^/]+/lib[^/]+\.so[^/]*`,
	`lib/[^/]+/lib[cm]\.so\.6`, // of glibc
	`lib(64)?/([^/]+/)?ld-linux[^/]*`,
	`(etc|usr/lib)/os-release`,
	`usr/share/doc/[^/]+/copyright`,
	`run`, // for the lock of iptables-legacy
}, "|") + `)$`)

// layer is an archive in the making. Its errors are pack's to return.
type layer struct {
	archive bytes.Buffer
	writer  *tar.Writer
	folders map[string]bool
	created time.Time
	err     error
}

func newLayer(created time.Time) *layer {
	l := &layer{folders: map[string]bool{".": true}, created: created}
	l.writer = tar.NewWriter(&l.archive)
	return l
}

// debianLayer unpacks what is kept of a folder's packages. Files have the
// times that Debian gave them, so that the layer changes with the packages
// only.
func debianLayer(folder string) (*layer, error) {
	packages, err := filepath.Glob(filepath.Join(folder, "*.deb"))
	if err != nil || len(packages) == 0 {
		return nil, fmt.Errorf("no package in %s", folder)
	}
	l := newLayer(time.Unix(0, 0).UTC())
	for _, file := range packages {
		if err := l.unpack(file); err != nil {
			return nil, fmt.Errorf("unpack %s: %w", filepath.Base(file), err)
		}
	}
	return l, nil
}

// unpack adds what is kept of a package, and its control data where
// vulnerability scanners look in images without a package manager.
func (l *layer) unpack(file string) error {
	contents, err := dpkgDeb("--fsys-tarfile", file)
	if err != nil {
		return err
	}
	for files := tar.NewReader(bytes.NewReader(contents)); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read its files: %w", err)
		}
		header.Name = path.Clean(header.Name)
		if !kept.MatchString(header.Name) {
			continue
		}
		text, err := io.ReadAll(files)
		if err != nil {
			return fmt.Errorf("read /%s: %w", header.Name, err)
		}
		l.add(*header, text)
	}
	control, err := dpkgDeb("--field", file)
	if err != nil {
		return err
	}
	name, _, _ := strings.Cut(filepath.Base(file), "_")
	l.add(tar.Header{Typeflag: tar.TypeReg, Name: "var/lib/dpkg/status.d/" + name, Mode: 0o644, ModTime: l.created}, control)
	return nil
}

// add writes a file, and before it the folders that it is in.
func (l *layer) add(header tar.Header, text []byte) {
	if folder := path.Dir(header.Name); !l.folders[folder] {
		l.add(tar.Header{Typeflag: tar.TypeDir, Name: folder, Mode: 0o755, ModTime: header.ModTime}, nil)
	}
	if header.Typeflag == tar.TypeDir {
		l.folders[header.Name] = true
		header.Name += "/"
	}
	header.Size = int64(len(text))
	l.err = errors.Join(l.err, l.writer.WriteHeader(&header))
	_, err := l.writer.Write(text)
	l.err = errors.Join(l.err, err)
}

func (l *layer) pack() (v1.Layer, error) {
	if err := errors.Join(l.err, l.writer.Close()); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(l.archive.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.DefaultCompression),
		tarball.WithCompressedCaching)
}

func dpkgDeb(args ...string) ([]byte, error) {
	cmd := exec.Command("dpkg-deb", args...)
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("dpkg-deb %s: %w", args[0], err)
	}
	return text, nil
}
