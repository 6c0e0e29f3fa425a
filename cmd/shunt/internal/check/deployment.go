package check

import "fmt"

// deployed reports whether the webhook has running replicas.
func (r *report) deployed(in installation) {
	reference := in.serviceReference()
	switch {
	case reference == nil:
		r.add(Warn, Deployment, in.object(), "not checked: the webhooks have a URL, not a Service")
		return
	case in.service == nil:
		r.add(Fail, Deployment, in.object(), "the webhooks' Service %s/%s does not exist", reference.Namespace, reference.Name)
		return
	case in.deployment == nil:
		r.add(Fail, Deployment, fmt.Sprintf("Service/%s/%s", reference.Namespace, reference.Name),
			"the Service selects pods of no Deployment")
		return
	}
	wanted, available := int32(1), in.deployment.Status.AvailableReplicas
	if in.deployment.Spec.Replicas != nil {
		wanted = *in.deployment.Spec.Replicas
	}
	level := OK
	switch {
	case available == 0:
		level = Fail
	case available < wanted:
		level = Warn
	}
	r.add(level, Deployment, in.deploymentObject(), "%d of %d replicas are available", available, wanted)
}

func (in installation) deploymentObject() string {
	return "Deployment/" + in.deployment.Namespace + "/" + in.deployment.Name
}
