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
	"github.com/shunt-dev/shunt/inject/config"
)

// installation is one Shunt: a webhook configuration and what it leads to.
type installation struct {
	configuration admissionregistrationv1.MutatingWebhookConfiguration
	webhooks      []admissionregistrationv1.MutatingWebhook // those of Shunt among them
	service       *corev1.Service                           // nil if none is named, or it does not exist
	deployment    *appsv1.Deployment                        // nil if none is behind the service
}

// ours returns the webhooks of a configuration that are Shunt's, by their names.
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
		if reference := in.serviceReference(); reference != nil {
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

// serviceReference returns the service that the webhooks name; nil if they name
// URLs.
func (in installation) serviceReference() *admissionregistrationv1.ServiceReference {
	return in.webhooks[0].ClientConfig.Service
}

func (in installation) object() string {
	return "MutatingWebhookConfiguration/" + in.configuration.Name
}

// revisions returns the revisions that the webhooks' selectors name; none if they
// use other labels.
func (in installation) revisions() []string {
	var names []string
	for _, w := range in.webhooks {
		names = append(append(names, selectedRevisions(w.NamespaceSelector)...), selectedRevisions(w.ObjectSelector)...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// flags returns the injector's flags among the Deployment's arguments, and those
// that say where its certificate is and where it serves its configuration.
func (in installation) flags() (flags *pflag.FlagSet, container *corev1.Container) {
	for i := range in.deployment.Spec.Template.Spec.Containers {
		container = &in.deployment.Spec.Template.Spec.Containers[i]
		flags = pflag.NewFlagSet(container.Name, pflag.ContinueOnError)
		flags.ParseErrorsAllowlist.UnknownFlags = true
		flags.Usage = func() {}
		injectflags.Add(flags)
		flags.String(certDir, "", "")
		flags.String(debugAddress, config.InForceAddress, "")
		// If they are invalid, the container itself reports it and exits.
		_ = flags.Parse(slices.Concat(container.Command, container.Args))
		if flags.Changed(certDir) || injectflags.File(flags) != "" {
			break
		}
	}
	return flags, container
}

// Flags of the webhook beside the injector's.
const (
	certDir      = "cert-dir"
	debugAddress = "debug-bind-address"
)

// secret returns the Secret that the Deployment's pods serve from, or "".
func (in installation) secret() string {
	if in.deployment == nil {
		return ""
	}
	flags, container := in.flags()
	if flags == nil {
		return ""
	}
	folder, _ := flags.GetString(certDir)
	volume, _ := in.volumeOf(container, folder)
	if volume == nil || volume.Secret == nil {
		return ""
	}
	return volume.Secret.SecretName
}

// volumeOf returns the volume that a path of the container is in, and the rest of
// the path.
func (in installation) volumeOf(container *corev1.Container, file string) (volume *corev1.Volume, rest string) {
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

// containerPort returns the port of the pods for a port of the service.
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
