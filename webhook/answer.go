package webhook

import (
	"fmt"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// verdict is the kind of an answer: the message of its log line, and the
// label "result" of its count.
type verdict string

const (
	verdictInjected verdict = "injected"
	verdictSkipped  verdict = "skipped"
	verdictDenied  verdict = "denied" // the pod is wrong, and its owner can mend it
	verdictFailed   verdict = "failed"  // the request is, or the webhook could not do its work
)

// Reasons of verdictFailed; those of the others are inject.Reasons.
const (
	failureUndecodable = "Undecodable"      // no review, or not a request to create a pod
	failureNamespace   = "NamespaceUnknown" // the pod's namespace could not be looked up
	failureVersion     = "VersionUnknown"   // the API server has not said yet which version it is
	failureAbandoned   = "Abandoned"        // the client went, or its time was over, before there was an answer
	failurePanic       = "Panic"            // a fault of Shunt's
)

func failures() []string {
	return []string{failureUndecodable, failureNamespace, failureVersion, failureAbandoned, failurePanic}
}

// auditKey is, behind the webhook's name and a slash, the key under which the
// API server's audit log has the reason.
const auditKey = "reason"

// answer is a response and what is told of it.
type answer struct {
	verdict  verdict
	pod      string // name or generateName
	reason   string
	response admission.Response
	owner    *metav1.OwnerReference // the pod's controller, nil where it has none
	stack    string                 // of a panic
}

// log writes the one line of a request. The pod itself stays out of it: its
// environment may hold secrets.
func (a answer) log(log logr.Logger, request *admissionv1.AdmissionRequest, took time.Duration) {
	values := []any{
		"pod", clip(a.pod, longestName), "namespace", clip(request.Namespace, longestName), "owner", clip(ownerName(a.owner), longestName),
		"reason", a.reason, "request", request.UID, "user", clip(request.UserInfo.Username, longestName), "dryRun", isDryRun(request),
		"durationSeconds", took.Seconds(),
	}
	switch {
	case a.stack != "":
		values = append(values, "error", clip(a.response.Result.Message, maxLogged/2), "stack", clip(a.stack, maxLogged/2))
	case a.verdict == verdictFailed || a.verdict == verdictDenied:
		values = append(values, "error", clip(a.response.Result.Message, maxLogged))
	default:
		values = append(values, "patchBytes", len(a.response.Patch), "warnings", fitting(a.response.Warnings, maxLogged))
	}
	log.Info(string(a.verdict), values...)
}

// ownerName is Kind/name, or nothing.
func ownerName(owner *metav1.OwnerReference) string {
	if owner == nil {
		return ""
	}
	return owner.Kind + "/" + owner.Name
}

// injected carries the operations and nothing of the pod. They are encoded
// already: response.Patches would have them looked at once more.
func injected(pod string, result inject.Result) answer {
	response := allowed(result)
	response.Patch = podplan.EncodePatch(result.Operations)
	response.PatchType = new(admissionv1.PatchTypeJSONPatch)
	return answer{verdict: verdictInjected, pod: pod, reason: string(result.Reason), response: response}
}

// skipped leaves the pod alone. Whoever wrote that it be injected is warned
// that it is not.
func skipped(name string, pod *corev1.Pod, result inject.Result) answer {
	response := allowed(result)
	asked := pod.Labels[annotation.InjectKey] == "true" || pod.Annotations[annotation.InjectKey] == "true"
	if asked && result.Reason != inject.ReasonAlreadyInjected {
		response.Warnings = append(response.Warnings,
			fmt.Sprintf("%s: not injected, though the pod says true: %s", annotation.InjectKey, result.Reason.Sentence()))
	}
	return answer{verdict: verdictSkipped, pod: name, reason: string(result.Reason), response: response}
}

// denied is what the API server itself says of an invalid pod: code 422, and
// a cause for every field, in the message too.
func denied(pod string, result inject.Result) answer {
	status := apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, clip(pod, longestName), result.Errors).Status()
	if more := result.AndMore(); more != "" {
		status.Message = clip(status.Message, maxMessage-2*len(more)) + ", " + more
	}
	response := admission.Response{AdmissionResponse: admissionv1.AdmissionResponse{
		Result:           &status,
		Warnings:         result.Warnings,
		AuditAnnotations: map[string]string{auditKey: string(result.Reason)},
	}}
	return answer{verdict: verdictDenied, pod: pod, reason: string(result.Reason), response: response}
}

// failed refuses a pod about which nothing is known. The API server takes this
// for a refusal whatever the failurePolicy, which is for webhooks that do not
// answer: the pod's traffic could bypass the proxy otherwise.
func failed(pod, reason string, code int32, err error) answer {
	response := admission.Errored(code, fmt.Errorf("shunt-webhook: %w", err))
	response.Result.Status = metav1.StatusFailure
	response.Result.Reason = metav1.StatusReasonInternalError
	if code == http.StatusBadRequest {
		response.Result.Reason = metav1.StatusReasonBadRequest
	}
	response.AuditAnnotations = map[string]string{auditKey: reason}
	return answer{verdict: verdictFailed, pod: pod, reason: reason, response: response}
}

func allowed(result inject.Result) admission.Response {
	response := admission.Allowed("")
	response.Warnings = result.Warnings
	response.AuditAnnotations = map[string]string{auditKey: string(result.Reason)}
	return response
}
