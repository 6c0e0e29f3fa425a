package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"
)

// files are those of a layer, by their path without a leading slash. A folder
// is implied by what is in it; an empty one is a file of that mode.
type files map[string]file

// file is a regular file, or a symbolic link where link says to what.
type file struct {
	mode fs.FileMode // its permissions, or fs.ModeDir
	data []byte
	link string
}

// folders returns every folder that the files are in, from the root down.
func (f files) folders() []string {
	all := map[string]bool{}
	for name := range f {
		if f[name].mode.IsDir() {
			all[name] = true
		}
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			all[dir] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// tar returns the files as a layer: sorted, all of root, all of one time.
func (f files) tar(created time.Time) ([]byte, error) {
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	for _, dir := range f.folders() {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: created}); err != nil {
			return nil, fmt.Errorf("write folder %s: %w", dir, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if f[name].mode.IsDir() {
			continue
		}
		header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(f[name].mode), ModTime: created}
		header.Size = int64(len(f[name].data))
		if f[name].link != "" {
			header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, f[name].link, 0o777
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("write file %s: %w", name, err)
		}
		if _, err := w.Write(f[name].data); err != nil {
			return nil, fmt.Errorf("write file %s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("end the layer: %w", err)
	}
	return buffer.Bytes(), nil
}

// extract writes the files into a folder, whatever the umask.
func (f files) extract(root string) error {
	for _, dir := range append([]string{"."}, f.folders()...) {
		if err := errors.Join(os.MkdirAll(filepath.Join(root, dir), 0o755), os.Chmod(filepath.Join(root, dir), 0o755)); err != nil {
			return fmt.Errorf("make folder %s: %w", dir, err)
		}
	}
	for name, held := range f {
		if held.mode.IsDir() {
			continue
		}
		place := filepath.Join(root, name)
		if err := os.Remove(place); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("replace %s: %w", name, err)
		}
		if held.link != "" {
			if err := os.Symlink(held.link, place); err != nil {
				return fmt.Errorf("make link %s: %w", name, err)
			}
			continue
		}
		if err := errors.Join(os.WriteFile(place, held.data, held.mode), os.Chmod(place, held.mode)); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}
