package sidecar

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// QoSResources decide about a pod's quality of service.
var QoSResources = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}

// IsGuaranteed reports whether a pod that is not injected has the quality of
// service Guaranteed: by the resources of the pod as a whole if it has any, else
// if every container has limits and equal requests
// (k8s.io/kubernetes, pkg/apis/core/v1/helper/qos). An API server sets missing
// requests to the limits.
func IsGuaranteed(pod *corev1.Pod) bool {
	same := func(of corev1.ResourceRequirements, name corev1.ResourceName) bool {
		limit := of.Limits[name]
		request, isSet := of.Requests[name]
		return limit.Sign() > 0 && (!isSet || request.Cmp(limit) == 0)
	}
	for _, name := range QoSResources {
		whole := pod.Spec.Resources
		all := whole == nil || same(*whole, name)
		// Missing requests of the pod are the sum of its containers', which may be
		// less than the limit.
		derived := false
		if whole != nil {
			_, isSet := whole.Requests[name]
			derived = !isSet
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

// KeepGuaranteed makes the requests of our containers equal to their limits:
// otherwise a Guaranteed pod becomes Burstable, is evicted earlier and has no
// CPUs of its own. It changes nothing if that does not suffice. It sets proxy's
// resources, and returns a configuration with those of the init container.
func KeepGuaranteed(req annotation.Request, proxy *corev1.Container, cfg config.Config) (changed config.Config, guaranteed bool) {
	sidecar, wrong := Equalize(req, proxy.Resources)
	first, wrongFirst := Equalize(annotation.Request{}, cfg.InitResources)
	if len(wrong)+len(wrongFirst) > 0 {
		return cfg, false
	}
	proxy.Resources, cfg.InitResources = sidecar, first
	return cfg, true
}

// Equalize returns resources with requests equal to the limits, and the names of
// those for which that is impossible. What the pod sets for one holds for the
// other:
//
//	the pod sets     the configuration has    both become
//	a request alone  any                      the request
//	a limit alone    any                      the limit; not of 0, which is none
//	both             any                      not, unless they are the same
//	nothing          a limit                  the limit
//	nothing          a request alone          the request
//	nothing          neither                  not
func Equalize(req annotation.Request, of corev1.ResourceRequirements) (levelled corev1.ResourceRequirements, wrong []corev1.ResourceName) {
	of = *of.DeepCopy()
	for _, name := range QoSResources {
		requestSet, limitSet := Asked(req, name)
		request, limit := of.Requests[name], of.Limits[name]
		both := limit
		switch {
		case requestSet && limitSet && request.Cmp(limit) != 0:
			both = resource.Quantity{}
		case requestSet && !limitSet, !limitSet && limit.Sign() <= 0:
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

// Asked reports whether the pod or its namespace sets the proxy's request or
// limit.
func Asked(req annotation.Request, name corev1.ResourceName) (requestSet, limitSet bool) {
	request, limit := req.ProxyResources.Of(name)
	return request != nil, limit != nil
}

// QoSWarnings warns that a Guaranteed pod becomes Burstable, and why.
func QoSWarnings(pod *corev1.Pod, req annotation.Request, plan *podplan.Plan, cfg config.Config) []string {
	if plan.Guaranteed || !IsGuaranteed(pod) {
		return nil
	}
	var warnings []string
	warn := func(whose string, name corev1.ResourceName, who string) {
		warnings = append(warnings, fmt.Sprintf("the pod is Guaranteed without the proxy and Burstable with it: %s has no request of %s "+
			"that equals its limit, because of %s", whose, name, who))
	}
	_, wrong := Equalize(req, plan.Containers.Proxy().Resources)
	for _, name := range wrong {
		warn(podplan.ProxyContainerName, name, whoAsks(req, name))
	}
	_, wrong = Equalize(annotation.Request{}, cfg.InitResources)
	for _, name := range wrong {
		warn(podplan.InitContainerName, name, ofInjector)
	}
	return warnings
}

const ofInjector = "the injector's configuration"

// whoAsks returns the fields that set a resource of the proxy.
func whoAsks(req annotation.Request, name corev1.ResourceName) string {
	keys := map[corev1.ResourceName][]string{
		corev1.ResourceCPU:    {annotation.ProxyCPUKey, annotation.ProxyCPULimitKey},
		corev1.ResourceMemory: {annotation.ProxyMemoryKey, annotation.ProxyMemoryLimitKey},
	}
	var from []string
	for _, key := range keys[name] {
		if req.Source.Has(key) {
			from = append(from, req.Source.Path(key).String())
		}
	}
	if len(from) == 0 {
		return ofInjector
	}
	return strings.Join(from, " and ")
}
