// Command images puts Shunt's images together, as OCI layouts, without a
// container engine: each has one static program of the project's, and
// shunt-init has iptables below it, out of Debian's packages. hack/images.sh
// calls it. The Dockerfile is the way with an engine.
package main

import (
	"archive/tar"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// images are what a runtime starts. Their program is their entrypoint.
var images = map[string]v1.Config{
	"shunt-init": {
		// The capabilities that a pod adds are not ambient, so another uid would not have them.
		User:       "0:0",
		Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Entrypoint: []string{"/usr/local/bin/shunt-init"},
		Labels:     map[string]string{"org.opencontainers.image.title": "Shunt's init container: intercepts a pod's traffic with iptables"},
	},
	"shunt-init-nftables": {
		User:       "0:0",
		Entrypoint: []string{"/usr/local/bin/shunt-init"},
		Labels:     map[string]string{"org.opencontainers.image.title": "Shunt's init container without iptables, for nftables"},
	},
	"shunt-node": {
		// Capabilities that a pod adds are not ambient.
		User:         "0:0",
		Entrypoint:   []string{"/shunt-node"},
		ExposedPorts: map[string]struct{}{"8081/tcp": {}, "8080/tcp": {}},
		Labels:       map[string]string{"org.opencontainers.image.title": "Shunt's node agent: sets pods' networks up from the node"},
	},
	"shunt-webhook": {
		User:         "65532:65532",
		Entrypoint:   []string{"/shunt-webhook"},
		ExposedPorts: map[string]struct{}{"9443/tcp": {}, "8081/tcp": {}, "8080/tcp": {}},
		Labels:       map[string]string{"org.opencontainers.image.title": "Shunt's admission webhook: injects the proxy into pods"},
	},
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run() error {
	architectures := flag.String("arch", "", "architectures, comma-separated")
	epoch := flag.Int64("epoch", 0, "creation time, in seconds since 1970")
	packages := flag.String("packages", "", "folder with <arch>/*.deb")
	programs := flag.String("programs", "", "folder with linux-<arch>/shunt-init, shunt-node and shunt-webhook")
	repository := flag.String("repository", "", "what the images' names begin with")
	tag := flag.String("tag", "", "the images' tag")
	flag.Parse()
	if flag.NArg() != 1 {
		return errors.New("usage: images [flags] FOLDER")
	}
	for name, config := range images {
		config.WorkingDir = "/"
		config.Labels["org.opencontainers.image.licenses"] = "Apache-2.0"
		config.Labels["org.opencontainers.image.version"] = *tag
		index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
		for arch := range strings.SplitSeq(*architectures, ",") {
			debian := ""
			if name == "shunt-init" {
				debian = filepath.Join(*packages, arch)
			}
			program := filepath.Join(*programs, "linux-"+arch, filepath.Base(config.Entrypoint[0]))
			image, err := build(config, arch, time.Unix(*epoch, 0).UTC(), debian, program)
			if err != nil {
				return fmt.Errorf("build %s for %s: %w", name, arch, err)
			}
			platform := v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}
			index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: platform})
		}
		written, err := layout.Write(filepath.Join(flag.Arg(0), name), empty.Index)
		if err != nil {
			return fmt.Errorf("begin the layout of %s: %w", name, err)
		}
		// An import finds the image by these: containerd by its full name, the others by the tag.
		names := map[string]string{
			"io.containerd.image.name": *repository + "/" + name + ":" + *tag, "org.opencontainers.image.ref.name": *tag,
		}
		if err := written.AppendIndex(index, layout.WithAnnotations(names)); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

// build makes the image of one architecture. Debian's files are a layer of
// their own, below: it stays the same from release to release.
func build(config v1.Config, arch string, created time.Time, debian, program string) (v1.Image, error) {
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.ConfigFile(base, &v1.ConfigFile{
		OS: "linux", Architecture: arch, Created: v1.Time{Time: created}, Config: config, RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, fmt.Errorf("set its configuration: %w", err)
	}
	text, err := os.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("read the program: %w", err)
	}
	own := newLayer(created)
	own.add(tar.Header{Typeflag: tar.TypeReg, Name: config.Entrypoint[0][1:], Mode: 0o755, ModTime: created}, text)
	layers := []*layer{own}
	if debian != "" {
		iptables, err := debianLayer(debian)
		if err != nil {
			return nil, err
		}
		layers = []*layer{iptables, own}
	}
	for _, l := range layers {
		packed, err := l.pack()
		if err != nil {
			return nil, fmt.Errorf("pack a layer: %w", err)
		}
		history := v1.History{Created: v1.Time{Time: l.created}, CreatedBy: "hack/images.sh"}
		image, err = mutate.Append(image, mutate.Addendum{Layer: packed, MediaType: types.OCILayer, History: history})
		if err != nil {
			return nil, fmt.Errorf("append a layer: %w", err)
		}
	}
	return image, nil
}
