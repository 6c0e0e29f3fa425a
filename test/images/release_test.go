package images

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

const (
	// project is where hack is, from here.
	project = "../.."
	// version is that of the test's release, and repository where its images are said to be.
	version    = "v0.0.1-rc.7"
	repository = "registry.example/shunt"
	// epoch is the creation time of all that is in it.
	epoch = 1700000000
)

// makeRelease has hack/release.sh make a release for some of the platforms.
func makeRelease(t *testing.T, folder string, environment ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(project, "hack/release.sh"), version, folder)
	cmd.Env = append(os.Environ(), "REPOSITORY="+repository, "PLATFORMS=linux-amd64 linux-arm64 windows-amd64",
		fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch))
	cmd.Env = append(cmd.Env, environment...)
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("hack/release.sh: %v\n%s", err, output)
	}
}

// require skips where no release can be made.
func require(t *testing.T) {
	t.Helper()
	for _, program := range []string{"dpkg-deb", "zip"} {
		if _, err := exec.LookPath(program); err == nil {
			continue
		}
		sentence := "this test needs " + program + ", which is not on PATH; hack/deps.sh installs it"
		if os.Getenv("CI") == "true" {
			t.Fatal(sentence)
		}
		t.Skip(sentence)
	}
}

// imageNames are the images of a release.
var imageNames = []string{"shunt-init", "shunt-init-nftables", "shunt-node", "shunt-webhook"}

// TestRelease makes a release and holds all that is in it to what is said of
// it.
func TestRelease(t *testing.T) {
	require(t)
	folder := t.TempDir()
	makeRelease(t, folder)
	images := map[string]map[string]built{}
	for _, name := range imageNames {
		known, architectures := openArchive(t, filepath.Join(folder, name+"-"+version+".tar")).image(t)
		if want := repository + "/" + name + ":" + version; known != want {
			t.Errorf("containerd would know it as %q, want %q", known, want)
		}
		if got := slices.Sorted(maps.Keys(architectures)); !slices.Equal(got, []string{"amd64", "arm64"}) {
			t.Errorf("%s is for %q", name, got)
		}
		images[name] = architectures
	}
	t.Run("settings", func(t *testing.T) { testSettings(t, images) })
	t.Run("files", func(t *testing.T) { testFiles(t, images) })
	t.Run("runs", func(t *testing.T) { testRuns(t, images["shunt-init"]) })
	t.Run("runs without iptables", func(t *testing.T) { testRunsAlone(t, images["shunt-init-nftables"]) })
	t.Run("checksums", func(t *testing.T) { testChecksums(t, folder) })
	t.Run("programs", func(t *testing.T) { testPrograms(t, folder) })
	t.Run("chart", func(t *testing.T) { testChart(t, folder) })
	t.Run("manifests", func(t *testing.T) { testManifests(t, folder) })
	t.Run("materials", func(t *testing.T) { testMaterials(t, folder, images) })
	t.Run("push", func(t *testing.T) { testPush(t, folder) })
	t.Run("again", func(t *testing.T) { testAgain(t, folder) })
}

// command runs a program to its end and returns what it prints.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), name, args...).Output()
	if err != nil {
		t.Fatalf("%s %q: %v", name, args, err)
	}
	return string(output)
}

// read returns a file of the release.
func read(t *testing.T, place ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(place...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// testChecksums holds which files there are, and that each has its checksum.
func testChecksums(t *testing.T, folder string) {
	want := []string{
		"install-node.yaml", "install-self-signed.yaml", "install.yaml", "shunt-0.0.1-rc.7.tgz",
		"shunt-init-" + version + ".tar", "shunt-init-nftables-" + version + ".tar",
		"shunt-node-" + version + ".tar", "shunt-webhook-" + version + ".tar",
	}
	for _, platform := range []string{"linux-amd64", "linux-arm64"} {
		for _, name := range imageNames {
			want = append(want, name+"-"+version+"-"+platform+".cdx.json")
		}
		want = append(want, "shunt-"+version+"-"+platform+".cdx.json", "shunt-"+version+"-"+platform+".tar.gz")
	}
	want = append(want, "shunt-"+version+"-windows-amd64.cdx.json", "shunt-"+version+"-windows-amd64.zip")
	slices.Sort(want)
	var summed []string
	for line := range strings.Lines(read(t, folder, "SHA256SUMS")) {
		summed = append(summed, strings.Fields(line)[1])
	}
	slices.Sort(summed)
	if diff := cmp.Diff(want, summed); diff != "" {
		t.Errorf("files in SHA256SUMS (-want +got):\n%s", diff)
	}
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != len(want)+1 {
		t.Errorf("%d files in the release, want %d and SHA256SUMS: %v", len(entries), len(want), err)
	}
	cmd := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "SHA256SUMS")
	cmd.Dir = folder
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("sha256sum: %v\n%s", err, output)
	}
}

// testPrograms holds what is in the archives, and that the programs say the
// version.
func testPrograms(t *testing.T, folder string) {
	name := "shunt-" + version + "-linux-" + runtime.GOARCH
	archive := filepath.Join(folder, name+".tar.gz")
	want := []string{name + "/", name + "/LICENSE", name + "/shunt", name + "/shunt-init", name + "/shunt-node", name + "/shunt-webhook"}
	if diff := cmp.Diff(want, strings.Fields(command(t, "tar", "--list", "--gzip", "--file", archive))); diff != "" {
		t.Errorf("files of %s (-want +got):\n%s", archive, diff)
	}
	unpacked := t.TempDir()
	command(t, "tar", "--extract", "--gzip", "--file", archive, "--directory", unpacked)
	if said := command(t, filepath.Join(unpacked, name, "shunt"), "version"); said != "shunt "+version+"\n" {
		t.Errorf("shunt version says %q", said)
	}
	for _, program := range []string{"shunt-init", "shunt-node", "shunt-webhook"} {
		if said := command(t, filepath.Join(unpacked, name, program), "--version"); !strings.Contains(said, version) {
			t.Errorf("%s --version says %q", program, said)
		}
	}
	windows := command(t, "zip", "-sf", filepath.Join(folder, "shunt-"+version+"-windows-amd64.zip"))
	for _, file := range []string{"/shunt.exe\n", "/LICENSE\n"} {
		if !strings.Contains(windows, "shunt-"+version+"-windows-amd64"+file) {
			t.Errorf("the archive for Windows has no %s: %s", file, windows)
		}
	}
}

// testChart holds that the chart is of the version and names its images.
func testChart(t *testing.T, folder string) {
	unpacked := t.TempDir()
	command(t, "tar", "--extract", "--gzip", "--file", filepath.Join(folder, "shunt-0.0.1-rc.7.tgz"), "--directory", unpacked)
	var chart struct{ Version, AppVersion string }
	var values struct {
		Image    struct{ Repository, Tag string }
		Injector struct{ InitImage string }
	}
	for name, into := range map[string]any{"Chart.yaml": &chart, "values.yaml": &values} {
		if err := yaml.Unmarshal([]byte(read(t, unpacked, "shunt", name)), into); err != nil {
			t.Fatal(err)
		}
	}
	if chart.Version != strings.TrimPrefix(version, "v") || chart.AppVersion != version {
		t.Errorf("the chart's versions are %q", chart)
	}
	if values.Image.Repository != repository+"/shunt-webhook" || values.Image.Tag != version ||
		values.Injector.InitImage != repository+"/shunt-init:"+version {
		t.Errorf("the chart's images are %q", values)
	}
	// The rest is the source's, which test/chart holds to the manifests.
	for _, name := range strings.Fields(command(t, "git", "-C", project, "ls-files", "charts/shunt/templates", "charts/shunt/files")) {
		if read(t, project, name) != read(t, unpacked, strings.TrimPrefix(name, "charts/")) {
			t.Errorf("%s is another one in the release", name)
		}
	}
}

// testManifests holds that every image of the manifests is one of the
// release's, but for the proxy's.
func testManifests(t *testing.T, folder string) {
	images := regexp.MustCompile(`(?m)(?:^|[ {])(?:image|initImage): *(\S+)`)
	want := []string{repository + "/shunt-init:" + version, repository + "/shunt-webhook:" + version}
	for _, name := range []string{"install.yaml", "install-self-signed.yaml"} {
		var found, kinds []string
		text := read(t, folder, name)
		for _, match := range images.FindAllStringSubmatch(text, -1) {
			found = append(found, match[1])
		}
		slices.Sort(found)
		if diff := cmp.Diff(want, found); diff != "" {
			t.Errorf("images of %s (-want +got):\n%s", name, diff)
		}
		for document := range strings.SplitSeq(text, "\n---\n") {
			var object struct{ Kind string }
			if err := yaml.Unmarshal([]byte(document), &object); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			kinds = append(kinds, object.Kind)
		}
		if !slices.Contains(kinds, "Deployment") || !slices.Contains(kinds, "MutatingWebhookConfiguration") ||
			slices.Contains(kinds, "Certificate") != (name == "install.yaml") {
			t.Errorf("%s has the kinds %q", name, kinds)
		}
	}
}

// testMaterials holds that a bill of materials has what is in its image or
// archive.
func testMaterials(t *testing.T, folder string, images map[string]map[string]built) {
	for arch, image := range images["shunt-init"] {
		var want []string
		for place := range image.contents {
			if path.Dir(place) == "var/lib/dpkg/status.d" {
				want = append(want, path.Base(place))
			}
		}
		slices.Sort(want)
		name := "shunt-init-" + version + "-linux-" + arch + ".cdx.json"
		if diff := cmp.Diff(want, debianPackages(t, folder, name)); diff != "" || len(want) == 0 {
			t.Errorf("packages of shunt-init for %s (-image +bill):\n%s", arch, diff)
		}
		if text := read(t, folder, name); !strings.Contains(text, `"pkg:golang/github.com/coreos/go-iptables@v`) ||
			strings.Contains(text, "k8s.io/api@") {
			t.Errorf("shunt-init for %s has other modules than its program: %s", arch, text)
		}
	}
	for _, name := range []string{"shunt-webhook-" + version + "-linux-arm64.cdx.json", "shunt-" + version + "-windows-amd64.cdx.json"} {
		text := read(t, folder, name)
		for _, url := range []string{"k8s.io/api@v", "github.com/shunt-dev/shunt@" + version, "stdlib@" + runtime.Version()[len("go"):]} {
			if !strings.Contains(text, `"pkg:golang/`+url) {
				t.Errorf("%s lacks %s: %s", name, url, text)
			}
		}
		if packages := debianPackages(t, folder, name); len(packages) > 0 {
			t.Errorf("%s has packages of Debian: %q", name, packages)
		}
	}
}

// debianPackages are those of a bill of materials.
func debianPackages(t *testing.T, folder, name string) (packages []string) {
	t.Helper()
	var bill struct {
		Components []struct{ Name, PURL string }
	}
	decode(t, []byte(read(t, folder, name)), &bill)
	for _, component := range bill.Components {
		if strings.HasPrefix(component.PURL, "pkg:deb/debian/") {
			packages = append(packages, component.Name)
		}
	}
	return packages
}

// testPush pushes the images to a registry of its own, and looks there for
// what is in the archive.
func testPush(t *testing.T, folder string) {
	crane := strings.TrimSpace(command(t, filepath.Join(project, "hack/tool.sh"), "crane"))
	registry := exec.CommandContext(t.Context(), crane, "registry", "serve", "--address", "127.0.0.1:0")
	log, err := registry.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := registry.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = registry.Process.Kill()
		_ = registry.Wait()
	})
	lines := bufio.NewScanner(log)
	if !lines.Scan() {
		t.Fatal("the registry says nothing")
	}
	port := lines.Text()[strings.LastIndex(lines.Text(), " ")+1:]
	go func() {
		for lines.Scan() { // or it would wait for a reader
		}
	}()
	host := "127.0.0.1:" + port + "/shunt"
	pushed := strings.Fields(command(t, filepath.Join(project, "hack/push.sh"), version, folder, host))
	for i, name := range imageNames {
		var index struct{ Manifests []descriptor }
		decode(t, openArchive(t, filepath.Join(folder, name+"-"+version+".tar"))["index.json"], &index)
		if want := host + "/" + name + "@" + index.Manifests[0].Digest; len(pushed) != len(imageNames) || pushed[i] != want {
			t.Errorf("hack/push.sh prints %q, want %s", pushed, want)
		}
		if digest := strings.TrimSpace(command(t, crane, "digest", host+"/"+name+":"+version)); digest != index.Manifests[0].Digest {
			t.Errorf("the registry has %s under the tag, want %s", digest, index.Manifests[0].Digest)
		}
		command(t, crane, "validate", "--remote", host+"/"+name+":"+version)
	}
}

// testAgain holds that a second run gives the same bytes, wherever and by
// whomever it is made.
func testAgain(t *testing.T, first string) {
	second := t.TempDir()
	makeRelease(t, second, "TMPDIR="+t.TempDir(), "TZ=Asia/Tokyo", "LC_ALL=C.UTF-8")
	if diff := cmp.Diff(read(t, first, "SHA256SUMS"), read(t, second, "SHA256SUMS")); diff != "" {
		t.Errorf("checksums (-first +second):\n%s", diff)
	}
}

// TestVersions holds that what is no release's version is not released.
func TestVersions(t *testing.T) {
	for _, wrong := range []string{"0.1.0", "v0.1", "v0.1.0-3-g0123abc", "v0.1.0-dirty", "v0.1.0-rc", "main"} {
		folder := filepath.Join(t.TempDir(), "release")
		output, err := exec.CommandContext(t.Context(), filepath.Join(project, "hack/release.sh"), wrong, folder).CombinedOutput()
		if err == nil || !strings.Contains(string(output), wrong) {
			t.Errorf("hack/release.sh %s: error %v, and %s", wrong, err, output)
		}
	}
}
