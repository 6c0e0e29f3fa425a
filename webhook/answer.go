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

// verdict is the kind of an answer: the message of its log line, and the label
// "result" of its count.
type verdict string

const (
	verdictInjected verdict = "injected"
	verdictSkipped  verdict = "skipped"
	verdictDenied   verdict = "denied" // the pod is wrong, and its owner can correct it
	verdictFailed   verdict = "failed" // the request is wrong, or the webhook could not do its work
)

// Reasons of verdictFailed. Those of the other verdicts are inject.Reasons.
const (
	failureUndecodable = "Undecodable"      // not a review, or not a request to create a pod
	failureNamespace   = "NamespaceUnknown" // the pod's namespace could not be looked up
	failureVersion     = "VersionUnknown"   // the API server has not reported its version yet
	failureAbandoned   = "Abandoned"        // the client went away, or its time was over, before there was an answer
	failurePanic       = "Panic"            // a bug of Shunt
)

func failures() []string {
	return []string{failureUndecodable, failureNamespace, failureVersion, failureAbandoned, failurePanic}
}

// auditKey is the key of the reason in the API server's audit log, after the
// webhook's name and a slash.
const auditKey = "reason"

// answer is a response and what the log, the metrics and Events need of it.
type answer struct {
	verdict  verdict
	pod      string // name or generateName
	reason   string
	response admission.Response
	owner    *metav1.OwnerReference // the pod's controller; nil if it has none
	stack    string                 // of a panic
}

// repeated reports whether the pod has been injected before: the API server asks
// again about a pod that a later webhook changed, and Shunt changed nothing more.
func (a answer) repeated() bool { return a.reason == string(inject.ReasonAlreadyInjected) }

// log writes the one line of a request, for debugging if it repeats another. The
// line leaves out the pod itself: its environment may hold secrets.
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
		values = append(values, "patchBytes", len(a.response.Patch), "warnings", fitTexts(a.response.Warnings, maxLogged))
	}
	if a.repeated() {
		log = log.V(1)
	}
	log.Info(string(a.verdict), values...)
}

// ownerName returns Kind/name, or "".
func ownerName(owner *metav1.OwnerReference) string {
	if owner == nil {
		return ""
	}
	return owner.Kind + "/" + owner.Name
}

// injected returns a response with the patch and nothing else of the pod. The
// operations are encoded already: response.Patches would be examined once more.
func injected(pod string, result inject.Result) answer {
	response := allowed(result)
	response.Patch = podplan.EncodePatch(result.Operations)
	response.PatchType = new(admissionv1.PatchTypeJSONPatch)
	return answer{verdict: verdictInjected, pod: pod, reason: string(result.Reason), response: response}
}

// skipped leaves the pod alone. It warns if the pod itself asked for injection.
func skipped(name string, pod *corev1.Pod, result inject.Result) answer {
	response := allowed(result)
	asked := pod.Labels[annotation.InjectKey] == "true" || pod.Annotations[annotation.InjectKey] == "true"
	if asked && result.Reason != inject.ReasonAlreadyInjected {
		response.Warnings = append(response.Warnings,
			fmt.Sprintf("%s: not injected, though the pod says true: %s", annotation.InjectKey, result.Reason.Sentence()))
	}
	return answer{verdict: verdictSkipped, pod: name, reason: string(result.Reason), response: response}
}

// denied returns what the API server itself answers for an invalid pod: code 422
// with a cause for every field, in the message too.
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

// failed denies a pod about which nothing is known: its traffic could bypass the
// proxy otherwise. The API server treats this as a denial whatever the
// failurePolicy, which is for webhooks that do not answer.
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
