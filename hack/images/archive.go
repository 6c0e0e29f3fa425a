package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// What an archive is found by once it is imported: containerd's full name,
// and the tag for the others.
const (
	containerdName = "io.containerd.image.name"
	refName        = "org.opencontainers.image.ref.name"
)

// writeArchive writes an image for all its architectures as an OCI archive.
func writeArchive(out string, s settings, img image, contents map[string][]layer) error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range s.architectures {
		built, err := build(img, arch, s, contents[arch])
		if err != nil {
			return fmt.Errorf("for %s: %w", arch, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: built, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	folder, err := os.MkdirTemp("", "shunt-image")
	if err != nil {
		return fmt.Errorf("make a folder for the image's blobs: %w", err)
	}
	defer os.RemoveAll(folder)
	held, err := layout.Write(folder, empty.Index)
	if err != nil {
		return fmt.Errorf("begin the image's folder: %w", err)
	}
	names := layout.WithAnnotations(map[string]string{
		containerdName: s.repository + "/" + img.name + ":" + s.tag, refName: s.tag,
	})
	if err := held.AppendIndex(index, names); err != nil {
		return fmt.Errorf("write the image's blobs: %w", err)
	}
	return tarFolder(folder, out, s.created)
}

// build makes the image of one architecture.
func build(img image, arch string, s settings, layers []layer) (v1.Image, error) {
	config := v1.Config{
		User: img.user, Entrypoint: []string{img.entrypoint}, WorkingDir: "/",
		Labels: map[string]string{"org.opencontainers.image.title": img.title, "org.opencontainers.image.licenses": "Apache-2.0"},
	}
	if img.path != "" {
		config.Env = []string{"PATH=" + img.path}
	}
	for _, port := range img.ports {
		if config.ExposedPorts == nil {
			config.ExposedPorts = map[string]struct{}{}
		}
		config.ExposedPorts[port] = struct{}{}
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	made, err := mutate.ConfigFile(base, &v1.ConfigFile{
		OS: "linux", Architecture: arch, Created: v1.Time{Time: s.created}, Config: config,
		RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, fmt.Errorf("write its configuration: %w", err)
	}
	for _, l := range layers {
		data, err := l.files.tar(s.created)
		if err != nil {
			return nil, err
		}
		opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
		packed, err := tarball.LayerFromOpener(opener, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(9))
		if err != nil {
			return nil, fmt.Errorf("pack a layer: %w", err)
		}
		made, err = mutate.Append(made, mutate.Addendum{
			Layer: packed, MediaType: types.OCILayer,
			History: v1.History{Created: v1.Time{Time: s.created}, CreatedBy: "hack/images.sh", Comment: l.comment},
		})
		if err != nil {
			return nil, fmt.Errorf("add a layer: %w", err)
		}
	}
	return made, nil
}

// tarFolder writes the files of a folder as an archive that is the same each
// time.
func tarFolder(folder, out string, created time.Time) error {
	var names []string
	err := filepath.WalkDir(folder, func(place string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			names = append(names, place)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list the image's blobs: %w", err)
	}
	slices.Sort(names)
	file, err := os.Create(out)
	if err != nil {
		return fmt.Errorf("make the archive: %w", err)
	}
	defer file.Close()
	w := tar.NewWriter(file)
	for _, place := range names {
		data, err := os.ReadFile(place)
		if err != nil {
			return fmt.Errorf("read a blob: %w", err)
		}
		name, err := filepath.Rel(folder, place)
		if err != nil {
			return fmt.Errorf("name a blob: %w", err)
		}
		header := &tar.Header{Typeflag: tar.TypeReg, Name: filepath.ToSlash(name), Mode: 0o644, Size: int64(len(data)), ModTime: created}
		if err := w.WriteHeader(header); err != nil {
			return fmt.Errorf("write blob %s: %w", name, err)
		}
		if _, err := w.Write(data); err != nil {
			return fmt.Errorf("write blob %s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("end the archive: %w", err)
	}
	return file.Close()
}
