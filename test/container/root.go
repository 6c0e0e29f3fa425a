//go:build linux

package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// rootPoint is where the container's root is mounted. Every system has the folder.
// What is in it now is opened before, and found by its descriptor.
const rootPoint = "/tmp"

// makeRoot gives the container a root in a mount namespace of its own: what this
// machine or the image has, with the volumes in their places.
func (c Container) makeRoot() error {
	if !c.ReadOnlyRoot && len(c.Mounts) == 0 && c.Root == "" {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	whole, err := c.openTree("/")
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", rootPoint, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	if err := whole.build(rootPoint); err != nil {
		return err
	}
	if c.ReadOnlyRoot {
		if err := readOnly(rootPoint, 0); err != nil {
			return err
		}
	}
	if err := unix.Chroot(rootPoint); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// entry is a file or folder of the container's root.
type entry struct {
	name     string
	fd       int         // of its content; -1 for a folder made of entries
	mode     fs.FileMode // its type
	link     string      // of a symbolic link
	readOnly bool
	entries  []entry
}

// openTree opens a folder of the container: as a whole if no volume is in it, and
// else entry by entry.
func (c Container) openTree(path string) (entry, error) {
	made := entry{name: filepath.Base(path), fd: -1, mode: fs.ModeDir}
	held, err := os.ReadDir(filepath.Join(c.Root, path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return made, err
	}
	names := map[string]fs.FileMode{}
	if c.Root != "" && path == "/" {
		for kernel := range kernels {
			names[strings.TrimPrefix(kernel, "/")] = fs.ModeDir
		}
	}
	for _, e := range held {
		names[e.Name()] = e.Type()
	}
	for _, m := range c.Mounts {
		if rest, under := strings.CutPrefix(m.Path, strings.TrimSuffix(path, "/")+"/"); under {
			first, _, _ := strings.Cut(rest, "/")
			names[first] = fs.ModeDir
		}
	}
	for name, mode := range names {
		child, err := c.openEntry(filepath.Join(path, name), mode)
		if err != nil {
			return made, err
		}
		made.entries = append(made.entries, child)
	}
	return made, nil
}

func (c Container) openEntry(path string, mode fs.FileMode) (made entry, err error) {
	made = entry{name: filepath.Base(path), mode: mode, readOnly: c.ReadOnlyRoot && !kernels[path]}
	source := filepath.Join(c.Root, path)
	if kernels[path] {
		source = path // this machine's, whatever the root
	}
	if i := slices.IndexFunc(c.Mounts, func(m Mount) bool { return m.Path == path }); i >= 0 {
		source, made.readOnly = c.Mounts[i].Source, c.Mounts[i].ReadOnly
		info, err := os.Stat(source)
		if err != nil {
			return made, err
		}
		made.mode = info.Mode().Type()
	} else if slices.ContainsFunc(c.Mounts, func(m Mount) bool { return strings.HasPrefix(m.Path, path+"/") }) {
		return c.openTree(path)
	}
	if made.mode&fs.ModeSymlink != 0 {
		made.link, err = os.Readlink(source)
		return made, err
	}
	made.fd, err = unix.Open(source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return made, fmt.Errorf("opening %s: %w", source, err)
	}
	return made, nil
}

// kernels are mounts that are not part of the root file system, and so not
// read-only with it.
var kernels = map[string]bool{"/proc": true, "/sys": true, "/dev": true}

// build mounts what was opened below a folder.
func (e entry) build(dir string) error {
	for _, child := range e.entries {
		if err := child.put(filepath.Join(dir, child.name)); err != nil {
			return fmt.Errorf("%s: %w", child.name, err)
		}
	}
	return nil
}

func (e entry) put(path string) error {
	switch {
	case e.mode&fs.ModeSymlink != 0:
		return os.Symlink(e.link, path)
	case e.fd < 0:
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		return e.build(path)
	case e.mode.IsDir():
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
	default:
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			return err
		}
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", e.fd), path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if e.readOnly {
		return readOnly(path, unix.AT_RECURSIVE)
	}
	return nil
}

func readOnly(path string, flags uint) error {
	return unix.MountSetattr(-1, path, flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}
