//go:build linux

package container

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// secure applies the security contexts; the container's overrides the pod's.
func (c *Container) secure(pod *corev1.PodSecurityContext, own *corev1.SecurityContext) error {
	if pod == nil {
		pod = &corev1.PodSecurityContext{}
	}
	if own == nil {
		own = &corev1.SecurityContext{}
	}
	if isTrue(own.Privileged) {
		return errors.New("privileged; such containers are not to be had here")
	}
	c.UID, c.GID = id(own.RunAsUser, pod.RunAsUser), id(own.RunAsGroup, pod.RunAsGroup)
	if c.UID == 0 && (isTrue(own.RunAsNonRoot) || own.RunAsNonRoot == nil && isTrue(pod.RunAsNonRoot)) {
		return errors.New("runAsNonRoot, but the user is 0")
	}
	c.NoNewPrivs = own.AllowPrivilegeEscalation != nil && !*own.AllowPrivilegeEscalation
	c.ReadOnlyRoot = isTrue(own.ReadOnlyRootFilesystem)
	return c.chooseCapabilities(own.Capabilities)
}

func isTrue(b *bool) bool { return b != nil && *b }

func id(own, pod *int64) uint32 {
	for _, candidate := range []*int64{own, pod} {
		if candidate != nil {
			return uint32(*candidate)
		}
	}
	return 0
}

// capabilityNames are in the kernel's order (linux/capability.h).
var capabilityNames = strings.Fields(`
	CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
	NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
	SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
	MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

// runtimeCapabilities are what containerd gives a container by default.
var runtimeCapabilities = strings.Fields(`CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP
	NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE`)

// chooseCapabilities applies what is dropped and then what is added to those of the
// runtime.
func (c *Container) chooseCapabilities(asked *corev1.Capabilities) error {
	if asked == nil {
		asked = &corev1.Capabilities{}
	}
	names := slices.DeleteFunc(slices.Clone(runtimeCapabilities), func(name string) bool {
		return slices.Contains(asked.Drop, corev1.Capability(name)) || slices.Contains(asked.Drop, "ALL")
	})
	for _, name := range asked.Add {
		names = append(names, string(name))
	}
	for _, name := range names {
		number := slices.Index(capabilityNames, name)
		if number < 0 {
			return fmt.Errorf("capability %q; accepted here: %s", name, strings.Join(capabilityNames, ", "))
		}
		if !slices.Contains(c.Capabilities, number) {
			c.Capabilities = append(c.Capabilities, number)
		}
	}
	return nil
}

// Identity describes the container's identity, for people.
func (c Container) Identity() string {
	var names []string
	for _, number := range c.Capabilities {
		names = append(names, capabilityNames[number])
	}
	if c.UID != 0 {
		// They are only in the bounding set: an ordinary user's program could get
		// them from its file, and none here has any.
		names = nil
	}
	if len(names) == 0 {
		names = []string{"none"}
	}
	return fmt.Sprintf("uid %d, gid %d, capabilities: %s", c.UID, c.GID, strings.Join(names, ", "))
}
