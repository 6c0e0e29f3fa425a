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

// leastMemory is below what any proxy runs in: a number that is less has lost
// its unit, such as 128 or 128m.
var leastMemory = resource.MustParse("1Mi")

// Quantities are the requests and limits that a pod asks for its proxy; nil
// what it says nothing of. A limit of 0 is none.
type Quantities struct {
	cpu, cpuLimit, memory, memoryLimit *resource.Quantity
}

// parseQuantity is stricter than Kubernetes' parser, which takes a unit alone
// for 0.
func parseQuantity(text string) (resource.Quantity, error) {
	if !strings.ContainsAny(text, "0123456789") {
		return resource.Quantity{}, resource.ErrNumeric
	}
	return resource.ParseQuantity(text)
}

// parseCPU reads what Kubernetes would take, and not more precisely than it
// counts.
func parseCPU(text string) (*resource.Quantity, error) {
	q, err := parseQuantity(text)
	if err != nil || q.Sign() < 0 || q.Cmp(*resource.NewMilliQuantity(q.MilliValue(), resource.DecimalSI)) != 0 {
		return nil, &interception.ValueError{Value: text, Accepted: acceptedCPU}
	}
	return &q, nil
}

func parseMemory(text string) (*resource.Quantity, error) {
	q, err := parseQuantity(text)
	whole := err == nil && q.Cmp(*resource.NewQuantity(q.Value(), resource.BinarySI)) == 0
	if !whole || q.Sign() < 0 || !q.IsZero() && q.Cmp(leastMemory) < 0 {
		return nil, &interception.ValueError{Value: text, Accepted: acceptedMemory}
	}
	return &q, nil
}

// Override returns the requests and limits with what the pod asks for in place of
// its own; those that it says nothing of stay, as long as no request is above
// its limit. What is given is not changed.
func (q Quantities) Override(of corev1.ResourceRequirements) corev1.ResourceRequirements {
	if q == (Quantities{}) {
		return of
	}
	of = *of.DeepCopy()
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		request, limit := q.Of(name)
		if request != nil {
			of.Requests = podplan.SetQuantity(of.Requests, name, *request)
		}
		switch {
		case limit == nil:
		case limit.IsZero():
			delete(of.Limits, name)
		default:
			of.Limits = podplan.SetQuantity(of.Limits, name, *limit)
		}
		// Of the two, the one that is not asked for gives way.
		had, requested := of.Requests[name]
		most, limited := of.Limits[name]
		switch {
		case !requested || !limited || had.Cmp(most) <= 0:
		case request != nil && limit == nil:
			of.Limits[name] = *request
		case request == nil && limit != nil:
			of.Requests[name] = *limit
		}
	}
	return of
}

// Of is what is asked for of one resource.
func (q Quantities) Of(name corev1.ResourceName) (request, limit *resource.Quantity) {
	if name == corev1.ResourceCPU {
		return q.cpu, q.cpuLimit
	}
	return q.memory, q.memoryLimit
}

// Check finds requests that are above their limits, where both are asked for.
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
