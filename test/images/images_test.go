package images

import (
	"archive/tar"
	"bytes"
	"flag"
	"fmt"
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

var update = flag.Bool("update", false, "write the list of files and the sizes into docs/images.md")

const page = "../../docs/images.md"

// epoch is the time that everything in the test's images bears.
const epoch = 1700000000

// repository is where the project is, from here.
const repository = "../.."

// buildImages has hack/images.sh, of a copy of the project, build the images
// into a folder.
func buildImages(t *testing.T, project, folder string, environment []string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(project, "hack/images.sh"), append(args, folder)...)
	cmd.Env = append(append(os.Environ(), "VERSION=v0.0.0-test", fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch)), environment...)
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("hack/images.sh: %v\n%s", err, output)
	}
}

// require skips where the images cannot be built.
func require(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("dpkg-deb"); err == nil {
		return
	}
	sentence := "this test reads Debian's packages with dpkg-deb, which is not on PATH; hack/deps.sh installs it"
	if os.Getenv("CI") == "true" {
		t.Fatal(sentence)
	}
	t.Skip(sentence)
}

// TestImages builds the images once and holds them to all that is said of them.
func TestImages(t *testing.T) {
	require(t)
	folder := t.TempDir()
	buildImages(t, repository, folder, nil, "--arch", "amd64,arm64")
	images := map[string]map[string]built{}
	for _, name := range []string{"shunt-init", "shunt-webhook"} {
		known, architectures := openArchive(t, filepath.Join(folder, name+".tar")).image(t)
		if want := "docker.io/library/" + name + ":dev"; known != want {
			t.Errorf("containerd would know it as %q, want %q", known, want)
		}
		if got := slices.Sorted(maps.Keys(architectures)); !slices.Equal(got, []string{"amd64", "arm64"}) {
			t.Errorf("%s is for %q", name, got)
		}
		images[name] = architectures
	}
	t.Run("settings", func(t *testing.T) { testSettings(t, images) })
	t.Run("files", func(t *testing.T) { testFiles(t, images) })
	t.Run("page", func(t *testing.T) { testPage(t, images) })
	t.Run("again", func(t *testing.T) { testAgain(t, folder) })
	t.Run("folders", func(t *testing.T) { testFolders(t, images) })
	t.Run("runs", func(t *testing.T) { testRuns(t, images["shunt-init"]) })
}

// testSettings holds what a runtime starts, and as whom, and that the
// Dockerfile's targets say the same.
func testSettings(t *testing.T, images map[string]map[string]built) {
	want := map[string]settings{
		"shunt-init": {
			User: "0:0", Entrypoint: []string{"/usr/local/bin/shunt-init"},
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		},
		"shunt-webhook": {
			User: "65532:65532", Entrypoint: []string{"/shunt-webhook"},
			ExposedPorts: map[string]struct{}{"9443/tcp": {}, "8081/tcp": {}, "8080/tcp": {}},
		},
	}
	docker := dockerfile(t)
	for name, architectures := range images {
		for arch, b := range architectures {
			if diff := cmp.Diff(want[name], b.settings); diff != "" {
				t.Errorf("%s for %s (-want +got):\n%s", name, arch, diff)
			}
		}
		if diff := cmp.Diff(want[name], docker[name]); diff != "" {
			t.Errorf("%s of the Dockerfile (-want +got):\n%s", name, diff)
		}
	}
}

// dockerfile reads what the last two targets of the Dockerfile say. Both have
// nothing in them but the folder that hack/images.sh made.
func dockerfile(t *testing.T) map[string]settings {
	t.Helper()
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	stages, name := map[string]settings{}, ""
	for line := range strings.Lines(string(text)) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		s := stages[name]
		switch word {
		case "FROM":
			name = ""
			if target, is := strings.CutPrefix(rest, "scratch AS "); is {
				name = "shunt-" + target
			}
			continue
		case "COPY":
			if want := "--from=images /out/" + name + "-$TARGETARCH/ /"; name != "" && rest != want {
				t.Errorf("%s: COPY %s, want %s", name, rest, want)
			}
		case "USER":
			s.User = rest
		case "ENV":
			s.Env = append(s.Env, rest)
		case "ENTRYPOINT":
			decode(t, []byte(rest), &s.Entrypoint)
		case "EXPOSE":
			s.ExposedPorts = map[string]struct{}{}
			for port := range strings.FieldsSeq(rest) {
				s.ExposedPorts[port+"/tcp"] = struct{}{}
			}
		case "RUN", "CMD":
			if name != "" {
				t.Errorf("%s has a %s; there is nothing in it to run", name, word)
			}
		}
		stages[name] = s
	}
	delete(stages, "")
	return stages
}

// testFiles holds what is in no image, and what each image has.
func testFiles(t *testing.T, images map[string]map[string]built) {
	shells := regexp.MustCompile(`(^|/)(ba|da|z|k|c|tc|fi)?sh$|busybox|toybox|coreutils|/(apt|dpkg|perl|python3?|nft|ip|env)$`)
	for name, architectures := range images {
		for arch, b := range architectures {
			for place, header := range b.headers() {
				if shells.MatchString(place) || bytes.HasPrefix(b.contents[place], []byte("#!")) {
					t.Errorf("%s for %s: /%s is a shell, a script or a tool", name, arch, place)
				}
				if mode := header.FileInfo().Mode(); mode&(os.ModeSetuid|os.ModeSetgid|os.ModeSticky) != 0 {
					t.Errorf("%s for %s: /%s is %s", name, arch, place, mode)
				}
				if !header.ModTime.Equal(time.Unix(epoch, 0)) {
					t.Errorf("%s for %s: /%s is of %s", name, arch, place, header.ModTime)
				}
				if header.Typeflag == tar.TypeSymlink {
					if _, ok := b.contents[path.Join(path.Dir(place), header.Linkname)]; !ok && !path.IsAbs(header.Linkname) {
						t.Errorf("%s for %s: /%s leads to %s, which is not there", name, arch, place, header.Linkname)
					}
				}
			}
		}
	}
	for arch, b := range images["shunt-webhook"] {
		if got := slices.Collect(maps.Keys(b.contents)); !slices.Equal(got, []string{"shunt-webhook"}) {
			t.Errorf("shunt-webhook for %s holds %q, want one program", arch, got)
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

// testAgain holds that a second run gives the same bytes, wherever and by
// whomever it is made.
func testAgain(t *testing.T, first string) {
	second := t.TempDir()
	buildImages(t, repository, second, []string{"TMPDIR=" + t.TempDir(), "TZ=Asia/Tokyo", "LC_ALL=C.UTF-8"}, "--arch", "amd64,arm64")
	for _, name := range []string{"shunt-init.tar", "shunt-webhook.tar"} {
		one, err := os.ReadFile(filepath.Join(first, name))
		if err != nil {
			t.Fatal(err)
		}
		two, err := os.ReadFile(filepath.Join(second, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(one, two) {
			t.Errorf("%s is another one the second time", name)
		}
	}
}

// engineContext copies what .dockerignore lets a container engine have.
func engineContext(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	for line := range strings.Lines(string(text)) {
		name, let := strings.CutPrefix(strings.TrimSpace(line), "!")
		if !let {
			continue
		}
		from, to := filepath.Join(repository, name), filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if output, err := exec.CommandContext(t.Context(), "cp", "-a", from, to).CombinedOutput(); err != nil {
			t.Fatalf("copying %s: %v\n%s", name, err, output)
		}
	}
	for _, pattern := range []string{"**/*_test.go", "**/testdata"} {
		if !strings.Contains(string(text), "\n"+pattern+"\n") {
			t.Fatalf(".dockerignore does not say %s", pattern)
		}
		arguments := []string{folder, "-depth", "-name", strings.TrimPrefix(pattern, "**/"), "-exec", "rm", "-r", "{}", ";"}
		if output, err := exec.CommandContext(t.Context(), "find", arguments...).CombinedOutput(); err != nil {
			t.Fatalf("leaving out %s: %v\n%s", pattern, err, output)
		}
	}
	return folder
}

// testFolders runs what the Dockerfile runs, on what it has, and holds that
// the images are then those of the archives.
func testFolders(t *testing.T, images map[string]map[string]built) {
	folder := t.TempDir()
	buildImages(t, engineContext(t), folder, nil, "--folders")
	for name, architectures := range images {
		want, got := map[string]string{}, map[string]string{}
		for place, header := range architectures["amd64"].headers() {
			want[place] = header.FileInfo().Mode().Type().String() + header.Linkname + string(architectures["amd64"].contents[place])
		}
		root := filepath.Join(folder, name+"-amd64")
		err := filepath.WalkDir(root, func(place string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			inside, err := filepath.Rel(root, place)
			if err != nil {
				return err
			}
			if entry.Type()&os.ModeSymlink != 0 {
				link, err := os.Readlink(place)
				got[inside] = entry.Type().String() + link
				return err
			}
			text, err := os.ReadFile(place)
			got[inside] = entry.Type().String() + string(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(want, got) {
			t.Errorf("%s: the folder holds %d files, the archive %d, or others", name, len(got), len(want))
		}
	}
}
