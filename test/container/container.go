//go:build linux

package container

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Node is what the node provides to a pod.
type Node struct {
	// Programs stand in for images, by the first word of a container's command, or
	// by "" for the image's own entry point. A program in a volume needs none.
	Programs map[string]string
	// Root is the folder of an unpacked image, which is then the root of the
	// containers and holds their programs; "" if this machine stands in.
	Root string
	// PodIPs are the pod's addresses.
	PodIPs []netip.Addr
	// HostIP is the node's address.
	HostIP string
	// Volumes are folders of this machine, by the name of the pod's volume.
	Volumes map[string]string
	// ConfigMaps are those of the pod's namespace, by name and key.
	ConfigMaps map[string]map[string]string
	// ResolvConf is the file that every container gets as /etc/resolv.conf; "" for
	// this machine's.
	ResolvConf string
	// EmptyDirs is a folder in which the pod's volumes of type emptyDir are created
	// when a container mounts them.
	EmptyDirs string
}

// Container is what a container runtime makes of a container of a pod: its identity
// and its command.
type Container struct {
	Root         string   // a folder on this machine; "" for all of it
	Program      string   // on this machine
	Args         []string // without the program's name
	Env          []string // NAME=value
	UID, GID     uint32
	Capabilities []int // by number: the bounding set
	NoNewPrivs   bool
	ReadOnlyRoot bool
	Mounts       []Mount
}

// Mount is a volume in a container.
type Mount struct {
	Path     string // in the container
	Source   string // on this machine
	ReadOnly bool
}

// New returns a container of a pod.
func New(pod *corev1.Pod, spec corev1.Container, node Node) (Container, error) {
	values, err := environment(pod, spec, node)
	if err != nil {
		return Container{}, err
	}
	words := make([]string, 0, len(spec.Command)+len(spec.Args))
	for _, word := range slices.Concat(spec.Command, spec.Args) {
		words = append(words, expand(word, values))
	}
	entry := ""
	if len(spec.Command) > 0 {
		entry, words = words[0], words[1:]
	}
	made := Container{Root: node.Root, Args: words}
	if made.Mounts, err = mounts(pod, spec, node); err != nil {
		return Container{}, err
	}
	if made.Program, err = made.program(entry, node); err != nil {
		return Container{}, err
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		made.Env = append(made.Env, name+"="+values[name])
	}
	return made, made.secure(pod.Spec.SecurityContext, spec.SecurityContext)
}

// Exec returns the container with another command, as kubelet runs a hook in it.
func (c Container) Exec(node Node, command []string) (Container, error) {
	if len(command) == 0 {
		return Container{}, errors.New("a command without words")
	}
	program, err := c.program(command[0], node)
	c.Program, c.Args = program, command[1:]
	return c, err
}

// program finds what stands in for the first word of a command.
func (c Container) program(entry string, node Node) (string, error) {
	for _, m := range c.Mounts {
		if rest, under := strings.CutPrefix(entry, m.Path+"/"); under {
			return filepath.Join(m.Source, rest), nil
		}
	}
	program, ok := node.Programs[entry]
	if !ok && node.Root != "" && filepath.IsAbs(entry) {
		return filepath.Join(node.Root, entry), nil
	}
	if !ok {
		return "", fmt.Errorf("command %q; here are %q", entry, slices.Sorted(maps.Keys(node.Programs)))
	}
	return program, nil
}

// environment resolves a container's variables.
func environment(pod *corev1.Pod, spec corev1.Container, node Node) (map[string]string, error) {
	fields := map[string]string{
		"metadata.name": pod.Name, "metadata.namespace": pod.Namespace, "spec.serviceAccountName": pod.Spec.ServiceAccountName,
	}
	if len(node.PodIPs) > 0 {
		var all []string
		for _, ip := range node.PodIPs {
			all = append(all, ip.String())
		}
		fields["status.hostIP"] = node.HostIP
		fields["status.podIP"], fields["status.podIPs"] = all[0], strings.Join(all, ",")
	}
	values := map[string]string{"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, variable := range spec.Env {
		switch {
		case variable.ValueFrom == nil:
			values[variable.Name] = expand(variable.Value, values)
		case variable.ValueFrom.FieldRef != nil:
			value, ok := fields[variable.ValueFrom.FieldRef.FieldPath]
			if !ok {
				return nil, fmt.Errorf("env %s: field %q; here are %q", variable.Name, variable.ValueFrom.FieldRef.FieldPath,
					slices.Sorted(maps.Keys(fields)))
			}
			values[variable.Name] = value
		case variable.ValueFrom.ConfigMapKeyRef != nil:
			ref := variable.ValueFrom.ConfigMapKeyRef
			value, ok := node.ConfigMaps[ref.Name][ref.Key]
			if !ok {
				return nil, fmt.Errorf("env %s: no key %q in a ConfigMap %q", variable.Name, ref.Key, ref.Name)
			}
			values[variable.Name] = value
		default:
			return nil, fmt.Errorf("env %s: only values, fields of the pod and keys of ConfigMaps are to be had here", variable.Name)
		}
	}
	return values, nil
}

// mounts finds the folders of a container's volumes, and creates empty ones.
func mounts(pod *corev1.Pod, c corev1.Container, node Node) ([]Mount, error) {
	var made []Mount
	if node.ResolvConf != "" {
		made = append(made, Mount{Path: "/etc/resolv.conf", Source: node.ResolvConf})
	}
	for _, m := range c.VolumeMounts {
		source, ok := node.Volumes[m.Name]
		if !ok {
			var err error
			if source, err = emptyDir(pod, m.Name, node); err != nil {
				return nil, err
			}
		}
		if m.SubPath != "" { // kubelet creates it
			source = filepath.Join(source, m.SubPath)
			if err := os.MkdirAll(source, 0o750); err != nil {
				return nil, fmt.Errorf("making %s of volume %s: %w", m.SubPath, m.Name, err)
			}
		}
		made = append(made, Mount{Path: filepath.Clean(m.MountPath), Source: source, ReadOnly: m.ReadOnly})
	}
	return made, nil
}

func emptyDir(pod *corev1.Pod, name string, node Node) (string, error) {
	isEmpty := func(v corev1.Volume) bool { return v.Name == name && v.EmptyDir != nil }
	if node.EmptyDirs == "" || !slices.ContainsFunc(pod.Spec.Volumes, isEmpty) {
		return "", fmt.Errorf("volume %q; here are %q, and those that are emptyDir", name, slices.Sorted(maps.Keys(node.Volumes)))
	}
	dir := filepath.Join(node.EmptyDirs, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("making volume %s: %w", name, err)
	}
	// As kubelet does, whatever the umask.
	if err := os.Chmod(dir, 0o777); err != nil {
		return "", fmt.Errorf("opening volume %s: %w", name, err)
	}
	return dir, nil
}
