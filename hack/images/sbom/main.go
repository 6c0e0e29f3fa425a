// Command sbom prints a software bill of materials, as CycloneDX JSON, of an
// artefact that is made of Go programs and Debian packages. It has what the
// programs say that they were built from, and what the packages say of
// themselves. The same files give the same bytes.
package main

import (
	"cmp"
	"debug/buildinfo"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

func main() {
	name := flag.String("name", "", "the artefact's name")
	version := flag.String("version", "", "the artefact's version")
	kind := flag.String("type", "application", "application or container")
	epoch := flag.Int64("epoch", 0, "creation time, in seconds since 1970")
	flag.Parse()
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{
		Timestamp: time.Unix(*epoch, 0).UTC().Format(time.RFC3339),
		Component: &cdx.Component{BOMRef: *name, Type: cdx.ComponentType(*kind), Name: *name, Version: *version},
	}
	if err := write(os.Stdout, bom, *version, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

// write lists the components of all files, each once.
func write(out io.Writer, bom *cdx.BOM, version string, files []string) error {
	var all []cdx.Component
	for _, file := range files {
		var components []cdx.Component
		var err error
		if strings.HasSuffix(file, ".deb") {
			components, err = debianPackage(file)
		} else {
			components, err = goModules(file, version)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		all = append(all, components...)
	}
	slices.SortFunc(all, func(a, b cdx.Component) int { return cmp.Compare(a.BOMRef, b.BOMRef) })
	all = slices.CompactFunc(all, func(a, b cdx.Component) bool { return a.BOMRef == b.BOMRef })
	bom.Components = &all
	return cdx.NewBOMEncoder(out, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bom)
}

// goModules are what a Go program was built from: its own module, which go
// build gives no version, those that it requires, and the standard library.
func goModules(file, version string) ([]cdx.Component, error) {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return nil, err
	}
	components := []cdx.Component{
		component("golang", info.Main.Path, version, ""),
		component("golang", "stdlib", strings.TrimPrefix(info.GoVersion, "go"), ""),
	}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		components = append(components, component("golang", module.Path, module.Version, ""))
	}
	return components, nil
}

// debianPackage is what a package says of itself.
func debianPackage(file string) ([]cdx.Component, error) {
	text, err := exec.Command("dpkg-deb", "--show", "--showformat=${Package} ${Version} ${Architecture}", file).Output()
	if err != nil {
		return nil, fmt.Errorf("dpkg-deb --show: %w", err)
	}
	fields := strings.Fields(string(text))
	if len(fields) != 3 {
		return nil, fmt.Errorf("dpkg-deb --show says %q", text)
	}
	return []cdx.Component{component("deb/debian", fields[0], fields[1], "?arch="+fields[2])}, nil
}

// component is a library that is known by its package URL.
func component(kind, name, version, qualifiers string) cdx.Component {
	// A plus and a colon have a meaning of their own there.
	url := "pkg:" + kind + "/" + name + "@" + strings.NewReplacer("+", "%2B", ":", "%3A").Replace(version) + qualifiers
	return cdx.Component{BOMRef: url, Type: cdx.ComponentTypeLibrary, Name: name, Version: version, PackageURL: url}
}
