package podplan

import (
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// Our containers and volumes must equal the plan, field by field, except for what
// this file lists: what API servers and well-known webhooks set in every pod.
// Everything else is put back, because a variable, a mount or a hook in our
// containers runs as the proxy, or as root with NET_ADMIN.
//
// Not on the list, and put back:
//
//   - another image, also one with a digest: Shunt cannot know whether it is the
//     same image. Name the images by digest in the configuration
//   - another request or limit, as of the vertical pod autoscaler
//   - variables such as HTTP_PROXY, which custom sidecars may obey
//
// Of the pod, the order and number of our containers, our volumes, sysctls, pull
// secrets and annotations count. The rest is the owner's. Our containers set their
// own ids and capabilities, so that the pod's securityContext only adds
// supplementary groups, which the rules do not match, and SELinux or AppArmor
// labels, which only restrict. With hostPID or shareProcessNamespace, processes
// can signal the proxy with the rights that they have anyway.

// filledIn are the API server's defaults for fields that are not set, in JSON, by
// type and field.
// (k8s.io/kubernetes, pkg/apis/core/v1/zz_generated.defaults.go.)
var filledIn = map[string][]string{
	"Container.TerminationMessagePath":     {`"/dev/termination-log"`},
	"Container.TerminationMessagePolicy":   {`"File"`},
	"ContainerPort.Protocol":               {`"TCP"`},
	"ObjectFieldSelector.APIVersion":       {`"v1"`},
	"FileKeySelector.Optional":             {`false`},
	"Probe.TimeoutSeconds":                 {`1`},
	"Probe.PeriodSeconds":                  {`10`},
	"Probe.SuccessThreshold":               {`1`},
	"Probe.FailureThreshold":               {`3`},
	"HTTPGetAction.Path":                   {`"/"`},
	"HTTPGetAction.Scheme":                 {`"HTTP"`},
	"GRPCAction.Service":                   {`""`},
	"SecurityContext.ProcMount":            {`"Default"`},
	"VolumeSource.EmptyDir":                {`{}`},
	"HostPathVolumeSource.Type":            {`""`},
	"ConfigMapVolumeSource.DefaultMode":    {`420`},
	"SecretVolumeSource.DefaultMode":       {`420`},
	"DownwardAPIVolumeSource.DefaultMode":  {`420`},
	"ProjectedVolumeSource.DefaultMode":    {`420`},
	"PersistentVolumeClaimSpec.VolumeMode": {`"Filesystem"`},
	"ImageVolumeSource.PullPolicy":         {`"Always"`, `"IfNotPresent"`},
	"ISCSIVolumeSource.ISCSIInterface":     {`"default"`},
	"RBDVolumeSource.RBDPool":              {`"rbd"`},
	"RBDVolumeSource.RadosUser":            {`"admin"`},
	"RBDVolumeSource.Keyring":              {`"/etc/ceph/keyring"`},
	"AzureDiskVolumeSource.CachingMode":    {`"ReadWrite"`},
	"AzureDiskVolumeSource.FSType":         {`"ext4"`},
	"AzureDiskVolumeSource.ReadOnly":       {`false`},
	"AzureDiskVolumeSource.Kind":           {`"Shared"`},
	"ScaleIOVolumeSource.StorageMode":      {`"ThinProvisioned"`},
	"ScaleIOVolumeSource.FSType":           {`"xfs"`},

	"ServiceAccountTokenProjection.ExpirationSeconds": {`3600`},
}

// overwritten are values that others set in place of the planned ones, in JSON:
// the API server's plug-in AlwaysPullImages does.
var overwritten = map[string]string{
	"Container.ImagePullPolicy":    `"Always"`,
	"ImageVolumeSource.PullPolicy": `"Always"`,
}

// addedMounts are the paths at which others mount a token into every container.
// None is below another: a symbolic link in the upper volume could move the lower
// mount anywhere.
var addedMounts = []string{
	TokenDirectory, // of a custom sidecar
	"/var/run/secrets/eks.amazonaws.com/serviceaccount", // amazon-eks-pod-identity-webhook
	"/var/run/secrets/pods.eks.amazonaws.com/serviceaccount",
	"/var/run/secrets/azure/tokens", // azure-workload-identity
}

// addedVariables are those that others set in every container: cloud credentials,
// which neither shunt-init nor Envoy uses.
var addedVariables = []string{
	// amazon-eks-pod-identity-webhook
	"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_DEFAULT_REGION", "AWS_REGION",
	"AWS_ROLE_ARN", "AWS_STS_REGIONAL_ENDPOINTS", "AWS_WEB_IDENTITY_TOKEN_FILE",
	// azure-workload-identity
	"AZURE_AUTHORITY_HOST", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_TENANT_ID",
}

// addedResources are those that the API server's plug-in LimitRanger sets in a
// container without them.
var addedResources = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}

// OtherFields returns the names, as in a manifest, of the fields in which a
// container differs from the plan.
func OtherFields(planned, actual corev1.Container) []string {
	// The containers are copies; their lists are not written to.
	actual.Env = slices.DeleteFunc(slices.Clone(actual.Env), func(v corev1.EnvVar) bool {
		return v.ValueFrom == nil && slices.Contains(addedVariables, v.Name) &&
			!slices.ContainsFunc(planned.Env, func(own corev1.EnvVar) bool { return own.Name == v.Name })
	})
	actual.VolumeMounts = slices.DeleteFunc(slices.Clone(actual.VolumeMounts), func(m corev1.VolumeMount) bool {
		plain := corev1.VolumeMount{Name: m.Name, MountPath: m.MountPath, ReadOnly: true}
		return equality.Semantic.DeepEqual(m, plain) &&
			slices.Contains(addedMounts, m.MountPath) && !IsVolumeName(m.Name) &&
			!slices.ContainsFunc(planned.VolumeMounts, func(own corev1.VolumeMount) bool {
				return path.Clean(own.MountPath) == m.MountPath
			})
	})
	if len(planned.ResizePolicy) == 0 && !slices.ContainsFunc(actual.ResizePolicy, restarts) {
		actual.ResizePolicy = nil // API servers of Kubernetes 1.27 to 1.32 set the default
	}
	if sameResources(planned.Resources, actual.Resources) {
		actual.Resources = planned.Resources
	}
	var fields []string
	want, have := reflect.ValueOf(planned), reflect.ValueOf(actual)
	for i := range want.NumField() {
		if field := want.Type().Field(i); !sameField(want, have, i) {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			fields = append(fields, name)
		}
	}
	return fields
}

// restarts reports whether new resources restart the container.
func restarts(policy corev1.ContainerResizePolicy) bool {
	return policy.RestartPolicy != corev1.NotRequired
}

// sameVolume reports whether a volume is as planned.
func sameVolume(planned, actual corev1.Volume) bool {
	return sameValue(reflect.ValueOf(planned), reflect.ValueOf(actual))
}

// sameField reports whether a field of two structs of one type is the same.
func sameField(want, have reflect.Value, i int) bool {
	name := want.Type().Name() + "." + want.Type().Field(i).Name
	want, have = want.Field(i), have.Field(i)
	values, filled := filledIn[name]
	if value, known := overwritten[name]; known && !have.IsZero() && string(encode(have.Interface())) == value {
		return true
	}
	if filled && want.IsZero() && !have.IsZero() && slices.Contains(values, string(encode(have.Interface()))) {
		return true
	}
	return sameValue(want, have)
}

var corePackage = reflect.TypeFor[corev1.Container]().PkgPath()

// sameValue reports whether two values are the same, but for what API servers set.
// Absent and empty lists are the same.
func sameValue(want, have reflect.Value) bool {
	switch want.Kind() {
	case reflect.Pointer:
		if want.IsNil() || have.IsNil() {
			return want.IsNil() == have.IsNil()
		}
		return sameValue(want.Elem(), have.Elem())
	case reflect.Slice:
		if want.Len() != have.Len() {
			return false
		}
		for i := range want.Len() {
			if !sameValue(want.Index(i), have.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Struct:
		if want.Type().PkgPath() != corePackage {
			return equality.Semantic.DeepEqual(want.Interface(), have.Interface())
		}
		for i := range want.NumField() {
			if !sameField(want, have, i) {
				return false
			}
		}
		return true
	default:
		return equality.Semantic.DeepEqual(want.Interface(), have.Interface())
	}
}

// sameResources reports whether a container has the planned requests and limits.
// It may have more: an API server sets missing requests to the limits, and
// LimitRanger adds a namespace's defaults.
func sameResources(planned, actual corev1.ResourceRequirements) bool {
	requests := maps.Clone(planned.Limits)
	if requests == nil {
		requests = corev1.ResourceList{}
	}
	maps.Copy(requests, planned.Requests)
	for name := range planned.Limits {
		if _, isPlanned := planned.Requests[name]; !isPlanned {
			if _, present := actual.Requests[name]; !present {
				delete(requests, name) // the pod has not met an API server yet
			}
		}
	}
	same := func(planned, actual corev1.ResourceList) bool {
		for name, want := range planned {
			if have, present := actual[name]; !present || have.Cmp(want) != 0 {
				return false
			}
		}
		for name := range actual {
			if _, wanted := planned[name]; !wanted && !slices.Contains(addedResources, name) {
				return false
			}
		}
		return true
	}
	return same(requests, actual.Requests) && same(planned.Limits, actual.Limits) &&
		equality.Semantic.DeepEqual(planned.Claims, actual.Claims)
}
