package check

import (
	"path"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shunt-dev/shunt/cmd/internal/injectflags"
)

// installation is one Shunt: a webhook configuration and what it leads to.
type installation struct {
	configuration admissionregistrationv1.MutatingWebhookConfiguration
	webhooks      []admissionregistrationv1.MutatingWebhook // Shunt's own among them
	service       *corev1.Service                           // nil where none is named, or it is not there
	deployment    *appsv1.Deployment                        // nil where none is behind the service
}

// ours are the webhooks of a configuration that are Shunt's, by their names.
func ours(configuration admissionregistrationv1.MutatingWebhookConfiguration) []admissionregistrationv1.MutatingWebhook {
	return slices.DeleteFunc(slices.Clone(configuration.Webhooks), func(w admissionregistrationv1.MutatingWebhook) bool {
		return !strings.HasSuffix(w.Name, ".shunt.dev")
	})
}

func (s Snapshot) installations() []installation {
	var all []installation
	for _, configuration := range s.Webhooks {
		in := installation{configuration: configuration, webhooks: ours(configuration)}
		if len(in.webhooks) == 0 {
			continue
		}
		if reference := in.reference(); reference != nil {
			in.service = find(s.Services, func(o *corev1.Service) bool {
				return o.Namespace == reference.Namespace && o.Name == reference.Name
			})
		}
		if in.service != nil {
			in.deployment = find(s.Deployments, func(o *appsv1.Deployment) bool {
				return o.Namespace == in.service.Namespace && isSubset(in.service.Spec.Selector, o.Spec.Template.Labels)
			})
		}
		all = append(all, in)
	}
	return all
}

// find returns the first that fits, or nil.
func find[T any](all []T, fits func(*T) bool) *T {
	for i := range all {
		if fits(&all[i]) {
			return &all[i]
		}
	}
	return nil
}

// reference is the service that the webhooks name; nil where they name URLs.
func (in installation) reference() *admissionregistrationv1.ServiceReference {
	return in.webhooks[0].ClientConfig.Service
}

func (in installation) object() string {
	return "MutatingWebhookConfiguration/" + in.configuration.Name
}

// revisions are those whose pods the webhooks' selectors send, as far as they
// say; none where they go by other labels.
func (in installation) revisions() []string {
	var names []string
	for _, w := range in.webhooks {
		names = append(append(names, asked(w.NamespaceSelector)...), asked(w.ObjectSelector)...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// flags are what the Deployment's arguments say of the injector, and in which
// folder it has its certificate.
func (in installation) flags() (fs *pflag.FlagSet, container *corev1.Container) {
	const certDir = "cert-dir"
	for i := range in.deployment.Spec.Template.Spec.Containers {
		container = &in.deployment.Spec.Template.Spec.Containers[i]
		fs = pflag.NewFlagSet(container.Name, pflag.ContinueOnError)
		fs.ParseErrorsAllowlist.UnknownFlags = true
		fs.Usage = func() {}
		injectflags.Add(fs)
		fs.String(certDir, "", "")
		// What is wrong with them the container says itself, and ends.
		_ = fs.Parse(slices.Concat(container.Command, container.Args))
		if fs.Changed(certDir) || injectflags.File(fs) != "" {
			break
		}
	}
	return fs, container
}

// secret is the one that the Deployment's pods serve from, or nothing.
func (in installation) secret() string {
	if in.deployment == nil {
		return ""
	}
	fs, container := in.flags()
	if fs == nil {
		return ""
	}
	folder, _ := fs.GetString("cert-dir")
	volume, _ := in.mounted(container, folder)
	if volume == nil || volume.Secret == nil {
		return ""
	}
	return volume.Secret.SecretName
}

// mounted is the volume that a path of the container is in, and the rest of
// the path.
func (in installation) mounted(container *corev1.Container, file string) (volume *corev1.Volume, rest string) {
	longest := ""
	for _, mount := range container.VolumeMounts {
		folder := path.Clean(mount.MountPath)
		behind, below := strings.CutPrefix(path.Clean(file)+"/", strings.TrimSuffix(folder, "/")+"/")
		if !below || len(folder) < len(longest) {
			continue
		}
		longest = folder
		rest = path.Join(mount.SubPath, behind)
		volume = find(in.deployment.Spec.Template.Spec.Volumes, func(v *corev1.Volume) bool { return v.Name == mount.Name })
	}
	return volume, rest
}

// containerPort is where the pods listen for a port of the service.
func (in installation) containerPort(port corev1.ServicePort) int32 {
	if port.TargetPort.Type == intstr.Int {
		if port.TargetPort.IntVal == 0 {
			return port.Port
		}
		return port.TargetPort.IntVal
	}
	if in.deployment == nil {
		return 0
	}
	for _, container := range in.deployment.Spec.Template.Spec.Containers {
		for _, p := range container.Ports {
			if p.Name == port.TargetPort.StrVal {
				return p.ContainerPort
			}
		}
	}
	return 0
}
