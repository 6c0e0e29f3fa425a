package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// tree is what packages hold between them.
type tree struct {
	platform platform
	files    files
	owner    map[string]string // of a file, the package
	control  map[string][]byte // of a package, what dpkg would note about it
}

// readPackages reads every package of a folder.
func readPackages(dir string, p platform) (*tree, error) {
	found, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(found) == 0 {
		return nil, fmt.Errorf("no package in %s", dir)
	}
	t := &tree{platform: p, files: files{}, owner: map[string]string{}, control: map[string][]byte{}}
	for _, deb := range found {
		if err := t.add(deb); err != nil {
			return nil, fmt.Errorf("read package %s: %w", filepath.Base(deb), err)
		}
	}
	return t, nil
}

// add reads one package by Debian's own tool.
func (t *tree) add(deb string) error {
	control, err := dpkgDeb("--field", deb)
	if err != nil {
		return err
	}
	name, err := dpkgDeb("--field", deb, "Package")
	if err != nil {
		return err
	}
	contents, err := dpkgDeb("--fsys-tarfile", deb)
	if err != nil {
		return err
	}
	pkg := strings.TrimSpace(string(name))
	t.control[pkg] = control
	archive := tar.NewReader(bytes.NewReader(contents))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read its files: %w", err)
		}
		if err := t.keep(pkg, header, archive); err != nil {
			return fmt.Errorf("read %s: %w", header.Name, err)
		}
	}
}

// keep notes a file of a package.
func (t *tree) keep(pkg string, header *tar.Header, contents io.Reader) error {
	name := path.Clean(strings.TrimPrefix(header.Name, "./"))
	switch header.Typeflag {
	case tar.TypeDir:
		return nil
	case tar.TypeSymlink:
		t.files[name] = file{link: header.Linkname}
	case tar.TypeReg:
		data, err := io.ReadAll(contents)
		if err != nil {
			return err
		}
		t.files[name] = file{mode: header.FileInfo().Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid), data: data}
	case tar.TypeLink:
		held, ok := t.files[path.Clean(header.Linkname)]
		if !ok {
			return fmt.Errorf("linked to %s, which did not come before", header.Linkname)
		}
		t.files[name] = held
	default:
		return fmt.Errorf("a file of type %q", header.Typeflag)
	}
	t.owner[name] = pkg
	return nil
}

func dpkgDeb(args ...string) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd := exec.Command("dpkg-deb", args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("dpkg-deb %s: %w: %s", args[0], err, strings.TrimSpace(errs.String()))
	}
	return out.Bytes(), nil
}
