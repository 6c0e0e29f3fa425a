package annotation

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/podplan"
)

const (
	acceptedCPU         = "a number of CPUs such as 100m or 2"
	acceptedMemory      = "a number of bytes such as 128Mi or 1Gi, 1Mi at least"
	acceptedNoLimit     = ", or 0 for no limit"
	acceptedCPULimit    = acceptedCPU + acceptedNoLimit
	acceptedMemoryLimit = acceptedMemory + acceptedNoLimit
)

// leastMemory is less than any proxy needs. A smaller number is one without its
// unit, such as 128, or with a wrong one, such as 128m.
var leastMemory = resource.MustParse("1Mi")

// Quantities are the requests and limits that annotations set for the proxy; nil
// if not set. A limit of 0 means no limit.
type Quantities struct {
	cpu, cpuLimit, memory, memoryLimit *resource.Quantity
}

// parseQuantity reads a quantity. It is stricter than Kubernetes' parser, which
// reads a unit alone as 0.
func parseQuantity(text string) (resource.Quantity, error) {
	if !strings.ContainsAny(text, "0123456789") {
		return resource.Quantity{}, resource.ErrNumeric
	}
	return resource.ParseQuantity(text)
}

// parseCPU reads a number of CPUs that is not negative and not finer than 1m,
// Kubernetes' precision.
func parseCPU(text string) (*resource.Quantity, error) {
	q, err := parseQuantity(text)
	if err != nil || q.Sign() < 0 || q.Cmp(*resource.NewMilliQuantity(q.MilliValue(), resource.DecimalSI)) != 0 {
		return nil, &interception.ValueError{Value: text, Accepted: acceptedCPU}
	}
	return &q, nil
}

// parseMemory reads a whole number of bytes: 0, or at least leastMemory.
func parseMemory(text string) (*resource.Quantity, error) {
	q, err := parseQuantity(text)
	whole := err == nil && q.Cmp(*resource.NewQuantity(q.Value(), resource.BinarySI)) == 0
	if !whole || q.Sign() < 0 || !q.IsZero() && q.Cmp(leastMemory) < 0 {
		return nil, &interception.ValueError{Value: text, Accepted: acceptedMemory}
	}
	return &q, nil
}

// Override returns a copy of the requests and limits with those that annotations
// set. The others stay, unless a request would be above its limit: then the one
// that no annotation sets is changed.
func (q Quantities) Override(given corev1.ResourceRequirements) corev1.ResourceRequirements {
	if q == (Quantities{}) {
		return given
	}
	result := *given.DeepCopy()
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		request, limit := q.Of(name)
		if request != nil {
			result.Requests = podplan.SetQuantity(result.Requests, name, *request)
		}
		switch {
		case limit == nil:
		case limit.IsZero():
			delete(result.Limits, name)
		default:
			result.Limits = podplan.SetQuantity(result.Limits, name, *limit)
		}
		// Change the one that no annotation sets.
		finalRequest, requested := result.Requests[name]
		finalLimit, limited := result.Limits[name]
		switch {
		case !requested || !limited || finalRequest.Cmp(finalLimit) <= 0:
		case request != nil && limit == nil:
			result.Limits[name] = *request
		case request == nil && limit != nil:
			result.Requests[name] = *limit
		}
	}
	return result
}

// Of returns the request and the limit that annotations set for one resource.
func (q Quantities) Of(name corev1.ResourceName) (request, limit *resource.Quantity) {
	if name == corev1.ResourceCPU {
		return q.cpu, q.cpuLimit
	}
	return q.memory, q.memoryLimit
}

// Check returns an error for each request that is above its limit, where
// annotations set both.
func (q Quantities) Check(from Source) field.ErrorList {
	var errs field.ErrorList
	for _, keys := range []struct {
		name           corev1.ResourceName
		request, limit string
	}{
		{corev1.ResourceCPU, ProxyCPUKey, ProxyCPULimitKey},
		{corev1.ResourceMemory, ProxyMemoryKey, ProxyMemoryLimitKey},
	} {
		request, limit := q.Of(keys.name)
		if request != nil && limit != nil && !limit.IsZero() && request.Cmp(*limit) > 0 {
			errs = append(errs, from.Invalid(keys.request, fmt.Sprintf(
				"the request is above the limit in %s, %s; accepted: at most that", from.Name(keys.limit), limit)))
		}
	}
	return errs
}
