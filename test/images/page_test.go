package images

import (
	"archive/tar"
	"fmt"
	"maps"
	"math"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// testPage holds docs/images.md to the images: the list of files exactly, and
// the sizes to a twentieth, since the programs grow.
func testPage(t *testing.T, images map[string]map[string]built) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		text = []byte(section(section(string(text), "sizes", sizes(images)), "files", listing(images["shunt-init"]["amd64"])))
		if err := os.WriteFile(page, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(listing(images["shunt-init"]["amd64"]), sectionOf(t, string(text), "files")); diff != "" {
		t.Errorf("the files of shunt-init (-is +%s); go test ./test/images -update writes them:\n%s", page, diff)
	}
	is, said := numbers(sizes(images)), numbers(sectionOf(t, string(text), "sizes"))
	if len(is) != len(said) || len(is) != 8 {
		t.Fatalf("%s has %d sizes, want %d", page, len(said), len(is))
	}
	for i := range is {
		if math.Abs(is[i]-said[i]) > 0.05*is[i]+0.1 {
			t.Errorf("%s says %v MB where it is %v; go test ./test/images -update writes them", page, said[i], is[i])
		}
	}
	if b := images["shunt-init"]["amd64"]; b.unpacked() > 16e6 || b.packed > 6e6 {
		t.Errorf("shunt-init is %d bytes, %d to pull; want less than 16 and 6 MB", b.unpacked(), b.packed)
	}
}

// sizes is a table of what is pulled, and of what is then on a node.
func sizes(images map[string]map[string]built) string {
	var b strings.Builder
	b.WriteString("| image | architecture | to pull | unpacked |\n|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(images)) {
		for _, arch := range slices.Sorted(maps.Keys(images[name])) {
			is := images[name][arch]
			fmt.Fprintf(&b, "| `%s` | %s | %.1f MB | %.1f MB |\n", name, arch, float64(is.packed)/1e6, float64(is.unpacked())/1e6)
		}
	}
	return b.String()
}

var megabytes = regexp.MustCompile(`([0-9.]+) MB`)

func numbers(table string) []float64 {
	var all []float64
	for _, match := range megabytes.FindAllStringSubmatch(table, -1) {
		number, err := strconv.ParseFloat(match[1], 64)
		if err == nil {
			all = append(all, number)
		}
	}
	return all
}

// listing is every file of an image, folder by folder.
func listing(b built) string {
	folders := map[string][]string{}
	for place, header := range b.headers() {
		name := path.Base(place)
		if header.Typeflag == tar.TypeSymlink {
			name += " -> " + header.Linkname
		}
		folders[path.Dir(place)] = append(folders[path.Dir(place)], name)
	}
	var text strings.Builder
	text.WriteString("```text\n")
	for _, folder := range slices.Sorted(maps.Keys(folders)) {
		slices.Sort(folders[folder])
		fmt.Fprintf(&text, "/%s/\n", folder)
		line := "   "
		for _, name := range folders[folder] {
			if len(line)+len(name)+2 > 120 {
				text.WriteString(line + "\n")
				line = "   "
			}
			line += " " + name + ";"
		}
		text.WriteString(strings.TrimSuffix(line, ";") + "\n")
	}
	text.WriteString("```\n")
	return text.String()
}

// A section of the page that this test writes stands between two marks.
func marks(name string) (begin, end string) {
	return "<!-- " + name + ": written by go test ./test/images -update -->\n", "<!-- end of " + name + " -->\n"
}

func section(text, name, is string) string {
	begin, end := marks(name)
	before, rest, _ := strings.Cut(text, begin)
	_, after, _ := strings.Cut(rest, end)
	return before + begin + is + end + after
}

func sectionOf(t *testing.T, text, name string) string {
	t.Helper()
	begin, end := marks(name)
	_, rest, found := strings.Cut(text, begin)
	is, _, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no section %s", page, name)
	}
	return is
}
