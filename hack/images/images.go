package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// image is what makes one of Shunt's images what it is; the Dockerfile's
// targets of the same names say the same.
type image struct {
	name, title string
	entrypoint  string
	user        string
	ports       []string
	path        string // PATH, where the program runs others
	contents    func(s settings, arch string) ([]layer, error)
}

// layer is a part of an image that changes for one reason.
type layer struct {
	comment string
	files   files
}

var images = []image{
	{
		name: "shunt-init", title: "Shunt's init container: programs netfilter so that a pod's traffic goes through its proxy",
		entrypoint: "/usr/local/bin/shunt-init",
		// The capabilities that a pod adds are not ambient, so another uid would not have them.
		user: "0:0", path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		contents: initContents,
	},
	{
		// One static program. It talks to the API server only, whose CA is mounted into the pod.
		name: "shunt-webhook", title: "Shunt's webhook: puts the proxy into pods when they are created",
		entrypoint: "/shunt-webhook", user: "65532:65532", ports: []string{"9443/tcp", "8081/tcp", "8080/tcp"},
		contents: webhookContents,
	},
}

// initContents are iptables, what it needs, and the program: in two layers,
// since Debian's changes seldom and need not be pulled again with each release.
func initContents(s settings, arch string) ([]layer, error) {
	tree, err := readPackages(filepath.Join(s.packages, arch), platforms[arch])
	if err != nil {
		return nil, err
	}
	debian, err := tree.iptables()
	if err != nil {
		return nil, err
	}
	own, err := program(s, arch, "shunt-init", "usr/local/bin/shunt-init")
	if err != nil {
		return nil, err
	}
	return []layer{{comment: "iptables, nft and legacy, and the libraries that it needs, from Debian", files: debian},
		{comment: "shunt-init", files: own}}, nil
}

func webhookContents(s settings, arch string) ([]layer, error) {
	own, err := program(s, arch, "shunt-webhook", "shunt-webhook")
	return []layer{{comment: "shunt-webhook", files: own}}, err
}

// program takes one of the project's programs to its place in the image.
func program(s settings, arch, name, path string) (files, error) {
	data, err := os.ReadFile(filepath.Join(s.programs, "linux-"+arch, name))
	if err != nil {
		return nil, fmt.Errorf("read the program %s: %w", name, err)
	}
	needs, err := readELF(data)
	if err != nil {
		return nil, fmt.Errorf("read the program %s: %w", name, err)
	}
	if len(needs.libraries) > 0 || needs.interpreter != "" || needs.machine != platforms[arch].machine {
		return nil, fmt.Errorf("program %s is for %s and needs %q; accepted: a static one for %s",
			name, needs.machine, needs.libraries, platforms[arch].machine)
	}
	return files{path: {mode: fs.FileMode(0o755), data: data}}, nil
}
