package inject

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shunt-dev/shunt/inject/podplan"
)

// qosResources are those that Kubernetes tells a pod's quality of service by.
var qosResources = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}

// guaranteed reports whether Kubernetes would give a pod that is without us the
// quality of service Guaranteed: where the pod has resources as a whole, by
// those, and else if every container has limits, and requests that are the same
// (k8s.io/kubernetes, pkg/apis/core/v1/helper/qos). An API server makes requests
// that are not there of the limits.
func guaranteed(pod *corev1.Pod) bool {
	same := func(of corev1.ResourceRequirements, name corev1.ResourceName) bool {
		limit := of.Limits[name]
		request, said := of.Requests[name]
		return limit.Sign() > 0 && (!said || request.Cmp(limit) == 0)
	}
	for _, name := range qosResources {
		whole := pod.Spec.Resources
		all := whole == nil || same(*whole, name)
		// Requests of the pod that are not there are made of its containers', which
		// may be less than the limit.
		derived := false
		if whole != nil {
			_, said := whole.Requests[name]
			derived = !said
		}
		podplan.EachContainer(pod, func(c podplan.Placed) bool {
			switch {
			case whole == nil:
				all = same(c.Resources, name)
			case derived:
				request := podplan.Requested(c.Resources, name)
				all = all && request.Sign() <= 0
			}
			return all
		})
		if !all {
			return false
		}
	}
	return len(pod.Spec.Containers) > 0
}

// stayGuaranteed has what is put into a Guaranteed pod request just what it may
// have, because one container that does not makes the pod Burstable: the first to
// be evicted, and without CPUs of its own. It changes nothing where that would
// not do. The configuration that it returns has the init container's resources.
func stayGuaranteed(req request, proxy *corev1.Container, cfg Config) (changed Config, guaranteed bool) {
	sidecar, wrong := level(req, proxy.Resources)
	first, wrongFirst := level(request{}, cfg.InitResources)
	if len(wrong)+len(wrongFirst) > 0 {
		return cfg, false
	}
	proxy.Resources, cfg.InitResources = sidecar, first
	return cfg, true
}

// level returns resources with requests that are the limits, and the names of
// those that cannot be. What the pod itself says of the one holds for the other:
//
//	the pod says     the configuration has    both become
//	a request alone  any                      the request
//	a limit alone    any                      the limit; not of 0, which is none
//	both             any                      not, unless they are the same
//	nothing          a limit                  the limit
//	nothing          a request alone          the request
//	nothing          neither                  not
func level(req request, of corev1.ResourceRequirements) (levelled corev1.ResourceRequirements, wrong []corev1.ResourceName) {
	of = *of.DeepCopy()
	for _, name := range qosResources {
		saysRequest, saysLimit := saysOf(req, name)
		request, limit := of.Requests[name], of.Limits[name]
		both := limit
		switch {
		case saysRequest && saysLimit && request.Cmp(limit) != 0:
			both = resource.Quantity{}
		case saysRequest && !saysLimit, !saysLimit && limit.Sign() <= 0:
			both = request
		}
		if both.Sign() <= 0 {
			wrong = append(wrong, name)
			continue
		}
		of.Requests, of.Limits = podplan.SetQuantity(of.Requests, name, both), podplan.SetQuantity(of.Limits, name, both)
	}
	return of, wrong
}

// saysOf reports whether the pod or its namespace says a request or a limit of
// the proxy's.
func saysOf(req request, name corev1.ResourceName) (saysRequest, saysLimit bool) {
	request, limit := req.resources.of(name)
	return request != nil, limit != nil
}

// qosWarnings tells the owner of a Guaranteed pod why it does not stay so.
func qosWarnings(pod *corev1.Pod, req request, plan *podplan.Plan, cfg Config) []string {
	if plan.Guaranteed || !guaranteed(pod) {
		return nil
	}
	var warnings []string
	warn := func(whose string, name corev1.ResourceName, who string) {
		warnings = append(warnings, fmt.Sprintf("the pod is Guaranteed without the proxy and Burstable with it: %s has no request of %s "+
			"that is its limit, by %s", whose, name, who))
	}
	_, wrong := level(req, plan.Containers.Proxy().Resources)
	for _, name := range wrong {
		warn(podplan.ProxyContainerName, name, whoSays(req, name))
	}
	_, wrong = level(request{}, cfg.InitResources)
	for _, name := range wrong {
		warn(podplan.InitContainerName, name, ofInjector)
	}
	return warnings
}

const ofInjector = "the injector's configuration"

// whoSays names the fields that a resource of the proxy's is from.
func whoSays(req request, name corev1.ResourceName) string {
	keys := map[corev1.ResourceName][]string{
		corev1.ResourceCPU:    {ProxyCPUKey, ProxyCPULimitKey},
		corev1.ResourceMemory: {ProxyMemoryKey, ProxyMemoryLimitKey},
	}
	var from []string
	for _, key := range keys[name] {
		if req.from.has(key) {
			from = append(from, req.from.path(key).String())
		}
	}
	if len(from) == 0 {
		return ofInjector
	}
	return strings.Join(from, " and ")
}
