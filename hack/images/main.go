// Command images puts together Shunt's two images without a container engine
// and without a registry: from the project's programs and Debian's packages,
// as OCI archives or as the folders that they hold.
//
// The same input gives the same bytes: files are sorted, belong to root and
// bear one time, and nothing of the machine goes in. hack/images.sh brings the
// packages and builds the programs.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

// settings are what the arguments say.
type settings struct {
	architectures []string
	packages      string // folder with a folder of .deb files for each architecture
	programs      string // folder with linux-<architecture>/<program>
	repository    string
	tag           string
	created       time.Time
	folders       bool
	out           string
}

func parse(args []string, stderr io.Writer) (settings, error) {
	var s settings
	fs := flag.NewFlagSet("images", flag.ContinueOnError)
	fs.SetOutput(stderr)
	architectures := fs.String("arch", "amd64", "architectures, with commas between them")
	epoch := fs.Int64("epoch", 0, "the time that everything bears, in seconds since 1970")
	fs.StringVar(&s.packages, "packages", "", "folder with <arch>/*.deb")
	fs.StringVar(&s.programs, "programs", "", "folder with linux-<arch>/shunt-init and linux-<arch>/shunt-webhook")
	fs.StringVar(&s.repository, "repository", "docker.io/library", "what the images' names begin with")
	fs.StringVar(&s.tag, "tag", "dev", "the images' tag")
	fs.BoolVar(&s.folders, "folders", false, "write the images' files as <image>-<arch>/ and no archives")
	if err := fs.Parse(args); err != nil {
		return s, err
	}
	s.architectures, s.created = strings.Split(*architectures, ","), time.Unix(*epoch, 0).UTC()
	for _, arch := range s.architectures {
		if _, known := platforms[arch]; !known {
			return s, fmt.Errorf("-arch: invalid value %q; accepted: amd64, arm64", arch)
		}
	}
	if fs.NArg() != 1 || s.packages == "" || s.programs == "" {
		return s, errors.New("usage: images -packages DIR -programs DIR [flags] OUT")
	}
	s.out = fs.Arg(0)
	return s, nil
}

// run writes the images that the arguments ask for.
func run(args []string, stderr io.Writer) error {
	s, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.out, 0o755); err != nil {
		return fmt.Errorf("make the folder of the images: %w", err)
	}
	for _, img := range images {
		contents := map[string][]layer{}
		for _, arch := range s.architectures {
			layers, err := img.contents(s, arch)
			if err != nil {
				return fmt.Errorf("put %s for %s together: %w", img.name, arch, err)
			}
			contents[arch] = layers
		}
		if err := s.write(img, contents); err != nil {
			return fmt.Errorf("write %s: %w", img.name, err)
		}
	}
	return nil
}

// write leaves an image in the form that was asked for.
func (s settings) write(img image, contents map[string][]layer) error {
	if !s.folders {
		return writeArchive(filepath.Join(s.out, img.name+".tar"), s, img, contents)
	}
	for arch, layers := range contents {
		for _, l := range layers {
			if err := l.files.extract(filepath.Join(s.out, img.name+"-"+arch)); err != nil {
				return err
			}
		}
	}
	return nil
}
