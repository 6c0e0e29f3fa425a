package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// descriptor points at another blob of an archive.
type descriptor struct {
	MediaType   string
	Digest      string
	Size        int64
	Annotations map[string]string
	Platform    struct{ OS, Architecture string }
}

// settings are what a container runtime reads of an image.
type settings struct {
	User         string
	Entrypoint   []string
	Cmd          []string
	Env          []string
	ExposedPorts map[string]struct{}
}

// built is an image of one architecture.
type built struct {
	settings settings
	packed   int64          // bytes to pull
	layers   [][]tar.Header // without folders
	contents map[string][]byte
}

// unpacked is the sum of the files' sizes.
func (b built) unpacked() (sum int64) {
	for _, data := range b.contents {
		sum += int64(len(data))
	}
	return sum
}

// headers are the files of all layers by their path, without folders.
func (b built) headers() map[string]tar.Header {
	all := map[string]tar.Header{}
	for _, layer := range b.layers {
		for _, header := range layer {
			all[header.Name] = header
		}
	}
	return all
}

// archive is an OCI archive's blobs, by their path in it.
type archive map[string][]byte

func openArchive(t *testing.T, file string) archive {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	blobs := archive{}
	for reader := tar.NewReader(bytes.NewReader(text)); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return blobs
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		blobs[header.Name], err = io.ReadAll(reader)
		if err != nil {
			t.Fatalf("%s: %s: %v", file, header.Name, err)
		}
	}
}

// blob returns what a descriptor points at, which has to be it.
func (a archive) blob(t *testing.T, d descriptor) []byte {
	t.Helper()
	data, ok := a["blobs/"+strings.Replace(d.Digest, ":", "/", 1)]
	sum := sha256.Sum256(data)
	if !ok || int64(len(data)) != d.Size || d.Digest != "sha256:"+hex.EncodeToString(sum[:]) {
		t.Fatalf("blob %s of %d bytes is missing or another one", d.Digest, d.Size)
	}
	return data
}

func decode(t *testing.T, data []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
}

// image returns the archive's image for each architecture, and the name under
// which containerd knows it.
func (a archive) image(t *testing.T) (name string, architectures map[string]built) {
	t.Helper()
	var index struct{ Manifests []descriptor }
	decode(t, a["index.json"], &index)
	if len(index.Manifests) != 1 {
		t.Fatalf("%d images in the archive, want one", len(index.Manifests))
	}
	var platforms struct{ Manifests []descriptor }
	decode(t, a.blob(t, index.Manifests[0]), &platforms)
	architectures = map[string]built{}
	for _, manifest := range platforms.Manifests {
		if manifest.Platform.OS != "linux" {
			t.Errorf("an image for %s", manifest.Platform.OS)
		}
		architectures[manifest.Platform.Architecture] = a.built(t, manifest)
	}
	return index.Manifests[0].Annotations["io.containerd.image.name"], architectures
}

func (a archive) built(t *testing.T, d descriptor) built {
	t.Helper()
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	decode(t, a.blob(t, d), &manifest)
	var config struct {
		Architecture, OS string
		Config           settings
		RootFS           struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	decode(t, a.blob(t, manifest.Config), &config)
	if config.OS != "linux" || config.Architecture != d.Platform.Architecture || len(config.RootFS.DiffIDs) != len(manifest.Layers) {
		t.Errorf("the configuration says %s/%s and %d layers, the manifest %s and %d", config.OS, config.Architecture,
			len(config.RootFS.DiffIDs), d.Platform.Architecture, len(manifest.Layers))
	}
	b := built{settings: config.Config, packed: manifest.Config.Size + d.Size, contents: map[string][]byte{}}
	for i, layer := range manifest.Layers {
		unzipped, err := gzip.NewReader(bytes.NewReader(a.blob(t, layer)))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(unzipped)
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(text); config.RootFS.DiffIDs[i] != "sha256:"+hex.EncodeToString(sum[:]) {
			t.Errorf("layer %d is not the one that the configuration names", i)
		}
		b.packed += layer.Size
		b.read(t, text)
	}
	return b
}

// read takes a layer in.
func (b *built) read(t *testing.T, text []byte) {
	t.Helper()
	var headers []tar.Header
	for reader := tar.NewReader(bytes.NewReader(text)); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			b.layers = append(b.layers, headers)
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Uid != 0 || header.Gid != 0 || header.FileInfo().Mode().Perm()&0o022 != 0 && header.Typeflag != tar.TypeSymlink {
			t.Errorf("%s is of %d:%d and %s, want root's and nobody else's to write", header.Name, header.Uid, header.Gid,
				header.FileInfo().Mode())
		}
		if header.Typeflag == tar.TypeDir {
			continue
		}
		headers = append(headers, *header)
		if b.contents[header.Name], err = io.ReadAll(reader); err != nil {
			t.Fatal(err)
		}
	}
}

// unpack writes an image's files into a folder, which becomes a container's
// root.
func (b built) unpack(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	headers := b.headers()
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		place := filepath.Join(root, name)
		if err := os.MkdirAll(path.Dir(place), 0o755); err != nil {
			t.Fatal(err)
		}
		header := headers[name]
		var err error
		if header.Typeflag == tar.TypeSymlink {
			err = os.Symlink(header.Linkname, place)
		} else {
			err = os.WriteFile(place, b.contents[name], header.FileInfo().Mode())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}
