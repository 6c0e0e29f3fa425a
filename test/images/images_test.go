package images

import (
	"archive/tar"
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// testSettings holds what a runtime starts, and as whom, and that the
// Dockerfile's targets say the same.
func testSettings(t *testing.T, images map[string]map[string]built) {
	want := map[string]settings{
		"shunt-init": {
			User: "0:0", Entrypoint: []string{"/usr/local/bin/shunt-init"},
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		},
		"shunt-init-nftables": {User: "0:0", Entrypoint: []string{"/usr/local/bin/shunt-init"}},
		"shunt-node": {
			User: "0:0", Entrypoint: []string{"/shunt-node"},
			ExposedPorts: map[string]struct{}{"8081/tcp": {}, "8080/tcp": {}},
		},
		"shunt-webhook": {
			User: "65532:65532", Entrypoint: []string{"/shunt-webhook"},
			ExposedPorts: map[string]struct{}{"9443/tcp": {}, "8081/tcp": {}, "8080/tcp": {}},
		},
	}
	for name, architectures := range images {
		for arch, b := range architectures {
			if diff := cmp.Diff(want[name], b.settings); diff != "" {
				t.Errorf("%s for %s (-want +got):\n%s", name, arch, diff)
			}
			if _, there := b.contents[strings.TrimPrefix(want[name].Entrypoint[0], "/")]; !there {
				t.Errorf("%s for %s: its entrypoint is not in it", name, arch)
			}
		}
	}
	if diff := cmp.Diff(want, dockerfile(t)); diff != "" {
		t.Errorf("the Dockerfile's targets (-want +got):\n%s", diff)
	}
}

// dockerfile reads the settings of the Dockerfile's targets, by the images'
// names.
func dockerfile(t *testing.T) map[string]settings {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(project, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	stages, name := map[string]settings{}, ""
	for line := range strings.Lines(string(text)) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		s := stages[name]
		switch word {
		case "FROM":
			_, target, _ := strings.Cut(rest, " AS ")
			name = "shunt-" + target
			s = settings{}
		case "COPY":
			if fields := strings.Fields(rest); name != "shunt-build" {
				s.Entrypoint = fields[len(fields)-1:] // which ENTRYPOINT repeats
			}
		case "USER":
			s.User = rest
		case "ENV":
			s.Env = append(s.Env, rest)
		case "ENTRYPOINT":
			copied := s.Entrypoint
			decode(t, []byte(rest), &s.Entrypoint)
			if !slices.Equal(copied, s.Entrypoint) {
				t.Errorf("%s of the Dockerfile starts %q, which is not what it copies, %q", name, s.Entrypoint, copied)
			}
		case "CMD":
			decode(t, []byte(rest), &s.Cmd)
		case "EXPOSE":
			s.ExposedPorts = map[string]struct{}{}
			for port := range strings.FieldsSeq(rest) {
				s.ExposedPorts[port+"/tcp"] = struct{}{}
			}
		}
		stages[name] = s
	}
	delete(stages, "")
	delete(stages, "shunt-build")
	return stages
}

// TestDockerignore holds that a container engine gets every package that the
// programs are built from.
func TestDockerignore(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(project, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{if .Main}}{{$.ImportPath}}{{end}}{{end}}",
		"./cmd/shunt-init", "./cmd/shunt-node", "./cmd/shunt-webhook")
	cmd.Dir = project
	packages, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for name := range strings.FieldsSeq(string(packages)) {
		folder, _, _ := strings.Cut(strings.TrimPrefix(name, "github.com/shunt-dev/shunt/"), "/")
		if !strings.Contains(string(text), "\n!"+folder+"\n") {
			t.Errorf(".dockerignore leaves out %s, of which %s is", folder, name)
		}
	}
}

// testFiles holds what is in no image, and what each image has.
func testFiles(t *testing.T, images map[string]map[string]built) {
	for name, architectures := range images {
		for arch, b := range architectures {
			t.Run(name+"/"+arch, func(t *testing.T) { testHarmless(t, b) })
		}
	}
	for _, name := range []string{"shunt-node", "shunt-webhook"} {
		for arch, b := range images[name] {
			if got := slices.Collect(maps.Keys(b.contents)); !slices.Equal(got, []string{name}) {
				t.Errorf("%s for %s holds %q, want one program", name, arch, got)
			}
		}
	}
	for arch, b := range images["shunt-init-nftables"] {
		if got := slices.Collect(maps.Keys(b.contents)); !slices.Equal(got, []string{"usr/local/bin/shunt-init"}) || b.unpacked() > 8e6 {
			t.Errorf("shunt-init-nftables for %s holds %q, %d bytes unpacked; want one program of less than 8 MB", arch, got, b.unpacked())
		}
	}
	for arch, b := range images["shunt-init"] {
		if b.packed > 6e6 || b.unpacked() > 18e6 {
			t.Errorf("shunt-init for %s is %d bytes to pull, %d unpacked; want less than 6 and 18 MB", arch, b.packed, b.unpacked())
		}
	}
	other := strings.NewReplacer("aarch64-linux-gnu", "x86_64-linux-gnu", "lib/ld-linux-aarch64.so.1", "lib64/ld-linux-x86-64.so.2",
		"ld-linux-aarch64.so.1", "ld-linux-x86-64.so.2")
	var arm64 []string
	for place := range images["shunt-init"]["arm64"].contents {
		arm64 = append(arm64, other.Replace(place))
	}
	slices.Sort(arm64)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(images["shunt-init"]["amd64"].contents)), arm64); diff != "" {
		t.Errorf("files of shunt-init (-amd64 +arm64):\n%s", diff)
	}
}

// testHarmless holds what no file of an image may be.
func testHarmless(t *testing.T, b built) {
	shells := regexp.MustCompile(`(^|/)(ba|da|z|k|c|tc|fi)?sh$|busybox|toybox|coreutils|/(apt|dpkg|perl|python3?|nft|ip|env)$`)
	t.Logf("%.1f MB to pull, %.1f MB unpacked", float64(b.packed)/1e6, float64(b.unpacked())/1e6)
	for place, header := range b.headers() {
		if shells.MatchString(place) || bytes.HasPrefix(b.contents[place], []byte("#!")) {
			t.Errorf("/%s is a shell, a script or a tool", place)
		}
		if mode := header.FileInfo().Mode(); mode&(os.ModeSetuid|os.ModeSetgid|os.ModeSticky) != 0 {
			t.Errorf("/%s is %s", place, mode)
		}
		// A layer of Debian's that named the time of a build would be pulled again with each release.
		if own := place == b.settings.Entrypoint[0][1:]; own != header.ModTime.Equal(time.Unix(epoch, 0)) {
			t.Errorf("/%s is of %s", place, header.ModTime)
		}
		if header.Typeflag == tar.TypeSymlink {
			if _, ok := b.contents[path.Join(path.Dir(place), header.Linkname)]; !ok && !path.IsAbs(header.Linkname) {
				t.Errorf("/%s leads to %s, which is not there", place, header.Linkname)
			}
		}
	}
}
