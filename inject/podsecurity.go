package inject

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/sidecar"
	"github.com/shunt-dev/shunt/inject/strict"
)

// enforceKey is the label with the Pod Security level that a namespace enforces
// (k8s.io/pod-security-admission, api.EnforceLevelLabel).
const enforceKey = "pod-security.kubernetes.io/enforce"

// levelsWithoutNetAdmin are the levels at which no container may add the
// capability NET_ADMIN: all but privileged.
var levelsWithoutNetAdmin = []string{"baseline", "restricted"}

// podSecurityFaults finds that the namespace does not allow what the pod's mode
// needs. The API server would deny the injected pod, and name a container that
// its owner has never heard of.
func podSecurityFaults(ns annotation.Namespace, req annotation.Request, cfg config.Config) (found strict.Faults) {
	// Without the init container only TPROXY's proxy needs it, for transparent sockets.
	spared := req.Mode == interception.ModeNone || req.Mode == interception.ModeRedirect && sidecar.FromNode(req.Mode, cfg)
	if spared || !cfg.CheckPodSecurity || !slices.Contains(levelsWithoutNetAdmin, ns.Labels[enforceKey]) {
		return strict.Faults{}
	}
	found.Add(func() *field.Error {
		return field.Forbidden(field.NewPath(annotation.NamespaceField, "metadata", "labels").Key(enforceKey), fmt.Sprintf(
			"at level %s no container may have %s, which mode %s needs; accepted: privileged, or for the pod %s: NONE%s",
			ns.Labels[enforceKey], sidecar.NetAdmin, req.Mode, annotation.InterceptionModeKey, withoutPrivileges(req.Mode)))
	})
	return found
}

// withoutPrivileges is how else a mode's pods pass.
func withoutPrivileges(mode interception.Mode) string {
	if mode == interception.ModeTProxy {
		return fmt.Sprintf("; or with shunt-node on the nodes %s: REDIRECT, and for the namespace %s: node",
			annotation.InterceptionModeKey, annotation.InterceptFromKey)
	}
	return fmt.Sprintf("; or with shunt-node on the nodes for the namespace %s: node", annotation.InterceptFromKey)
}
