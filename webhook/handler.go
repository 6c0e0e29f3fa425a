package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/semaphore"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
)

// Path is where the webhook is served. The manifest in config/webhook uses it too.
const Path = "/mutate--v1-pod"

// NamespaceGetter looks up namespaces.
type NamespaceGetter interface {
	// Namespace returns the named namespace, or an error if its content cannot be
	// known. Then pods are denied: none may bypass a namespace that asks for the
	// proxy.
	Namespace(ctx context.Context, name string) (annotation.Namespace, error)
}

// answerTime bounds the time for an answer. It is Kubernetes' default for a webhook
// without a timeout.
const answerTime = 10 * time.Second

// Handler answers requests to create pods. It keeps no state between requests. A
// dry run gets the same answer as any other request, but no Event.
type Handler struct {
	current    current
	namespaces NamespaceGetter
	// events are about pods that are not created, and have a budget of their own.
	events, warnings *announcer
	metrics          *Metrics
	decoder          admission.Decoder
	timeout          time.Duration // answerTime by default
	intake           *intake
	// turns bounds how many answers are worked out at once, by their memory. Each
	// takes a processor; with more at once than processors, all would wait for all.
	turns *semaphore.Weighted
	// answers bounds the memory of large answers that clients have not read yet.
	answers *semaphore.Weighted
}

// NewHandler returns a Handler that injects as cfg says, which must have passed
// Validate, and counts in metrics. It writes no Events.
func NewHandler(cfg config.Config, namespaces NamespaceGetter, metrics *Metrics) *Handler {
	h := &Handler{
		namespaces: namespaces, metrics: metrics, decoder: admission.NewDecoder(newScheme()), timeout: answerTime,
		intake: newIntake(bodiesMemory, func() { metrics.drop(droppedBody) }),
		turns:  semaphore.NewWeighted(workMemory), answers: semaphore.NewWeighted(answersMemory),
	}
	h.SetConfig(cfg)
	return h
}

// SetConfig makes later requests use cfg, which must have passed Validate. Requests
// in progress are not affected.
func (h *Handler) SetConfig(cfg config.Config) { h.current.configure(cfg) }

// asks reports whether a namespace asks for the current injector.
func (h *Handler) asks(ns annotation.Namespace) bool {
	injector := h.current.injector.Load()
	return injector != nil && injector.Asks(ns)
}

// RecordEvents makes the Handler write an Event for each pod that is denied, each
// request that fails and each pod with warnings. It is about the pod's controller:
// the pod itself is never created, or nobody reads the answer to its creation. Call
// it before the first request.
func (h *Handler) RecordEvents(recorder events.EventRecorder) {
	h.events, h.warnings = newAnnouncer(recorder), newAnnouncer(recorder)
}

// SetAnswerTimeout sets how long an answer may take if its client waits for it; the
// default is 10 s. Call it before the first request.
func (h *Handler) SetAnswerTimeout(timeout time.Duration) { h.timeout = timeout }

// HTTP returns the http.Handler to serve at Path. It answers an AdmissionReview
// with an AdmissionReview, and anything else with a Status and a code from 400 on.
// Each request is a log line and a count. The caller provides TLS, which API
// servers require.
//
// The end of a request's context means that its client has gone, and ends the work
// on it. Requests in progress when a server is told to stop are still answered, so
// the context that stops the server must not be its BaseContext.
func (h *Handler) HTTP(log logr.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		ctx, cancel := context.WithTimeout(r.Context(), h.timeFor(r))
		defer cancel()
		body, failure := h.receive(ctx, w, r)
		defer body.release()
		var request *admissionv1.AdmissionRequest
		if failure == nil {
			request, failure = h.readReview(ctx, body)
		}
		if failure != nil {
			reason := failureUndecodable
			if failure.code == http.StatusServiceUnavailable {
				reason = failureAbandoned
			}
			h.metrics.observe(verdictFailed, reason, time.Since(start), 0)
			log.Info(string(verdictFailed), "reason", reason, "code", failure.code, "error", clip(failure.err.Error(), maxLogged),
				"remote", r.RemoteAddr, "durationSeconds", time.Since(start).Seconds())
			h.send(ctx, log, w, failure.code, failure.status())
			return
		}
		answered := h.complete(ctx, admission.Request{AdmissionRequest: *request})
		body.release()
		took := time.Since(start)
		h.metrics.observe(answered.verdict, answered.reason, took, len(answered.response.Patch))
		answered.log(log, request, took)
		if r.Context().Err() == nil {
			review := admissionv1.AdmissionReview{TypeMeta: reviewType, Response: &answered.response.AdmissionResponse}
			h.send(r.Context(), log, w, http.StatusOK, review)
		}
		h.announce(request, answered)
	})
}

// readReview decodes the request in a body.
func (h *Handler) readReview(ctx context.Context, b *body) (*admissionv1.AdmissionRequest, *httpError) {
	weight := weigh(b.bytes)
	if weight > workMemory {
		return nil, tooLarge("the pod would take %d bytes of memory; accepted: up to %d", weight, workMemory)
	}
	if err := h.turns.Acquire(ctx, turn(weight)); err != nil {
		return nil, &httpError{http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, fmt.Errorf("wait for a turn: %w", err)}
	}
	defer h.turns.Release(turn(weight))
	return decodeReview(b.bytes)
}

// announce writes why there is no pod, or the warnings about it, to the pod's
// controller, as an Event. A pod that has been injected has had its warnings.
func (h *Handler) announce(request *admissionv1.AdmissionRequest, a answer) {
	owner := reference(request.Namespace, a.owner)
	if owner == nil || isDryRun(request) {
		return
	}
	note := func(text string) string { return fmt.Sprintf("pod %q: %s", a.pod, text) }
	warnings := strings.Join(a.response.Warnings, "; ")
	switch {
	case a.verdict == verdictDenied || a.verdict == verdictFailed:
		h.events.warn(owner, a.reason, actionInject, note(a.response.Result.Message))
	case warnings == "" || a.repeated():
	case a.verdict == verdictInjected:
		h.warnings.warn(owner, eventInjectedWithWarnings, actionInject, note(warnings))
	default:
		h.warnings.warn(owner, eventSkippedWithWarnings, actionInject, note(warnings))
	}
}

func isDryRun(request *admissionv1.AdmissionRequest) bool {
	return request.DryRun != nil && *request.DryRun
}

// complete answers one request, with everything that an AdmissionReview needs.
func (h *Handler) complete(ctx context.Context, req admission.Request) answer {
	a := h.answer(ctx, req)
	if err := a.response.Complete(req); err != nil {
		panic("it encodes response.Patches only, and there are none: " + err.Error())
	}
	fitResponse(&a.response.AdmissionResponse)
	return a
}

// answer answers one request. If it panics, the pod is denied with a reason instead
// of a broken connection.
func (h *Handler) answer(ctx context.Context, request admission.Request) (result answer) {
	name, owner := request.Name, (*metav1.OwnerReference)(nil)
	decoded := false // the pod
	defer func() {
		if cause := recover(); cause != nil {
			if !decoded {
				name, owner = h.podAndOwner(request)
			}
			result = failed(name, failurePanic, http.StatusInternalServerError, fmt.Errorf("panic: %v", cause))
			result.stack = string(debug.Stack())
		}
		result.owner = owner
	}()
	if err := checkRequest(request); err != nil {
		return failed(name, failureUndecodable, http.StatusBadRequest, err)
	}
	// The namespace comes before the pod: a pod that waits takes memory.
	ns, lookup := h.namespace(ctx, request.Namespace)
	weight := turn(weigh(request.Object.Raw))
	if err := h.turns.Acquire(ctx, weight); err != nil {
		return failed(name, failureAbandoned, http.StatusGatewayTimeout, errors.Join(fmt.Errorf("wait for a turn: %w", err), lookup))
	}
	defer h.turns.Release(weight)
	decoded = true
	pod, err := h.decode(request)
	if err != nil {
		return failed(name, failureUndecodable, http.StatusBadRequest, err)
	}
	name, owner = podName(pod), metav1.GetControllerOfNoCopy(pod)
	if lookup != nil {
		return failed(name, failureNamespace, http.StatusInternalServerError, fmt.Errorf(
			"look up namespace %q of pod %q: %w", clip(pod.Namespace, longestName), clip(name, longestName), lookup))
	}
	return h.decide(pod, ns)
}

// podAndOwner returns a request's pod and its controller, if they can be read.
func (h *Handler) podAndOwner(req admission.Request) (name string, owner *metav1.OwnerReference) {
	pod, err := h.decode(req)
	if err != nil {
		return req.Name, nil
	}
	return podName(pod), metav1.GetControllerOfNoCopy(pod)
}

// namespace looks up a namespace. It leaves some of the time to report that it
// could not.
func (h *Handler) namespace(ctx context.Context, name string) (annotation.Namespace, error) {
	if deadline, set := ctx.Deadline(); set {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)*9/10)
		defer cancel()
	}
	return h.namespaces.Namespace(ctx, name)
}

func (h *Handler) decide(pod *corev1.Pod, ns annotation.Namespace) answer {
	name, injector := podName(pod), h.current.injector.Load()
	if injector == nil {
		return failed(name, failureVersion, http.StatusInternalServerError, errVersionUnknown)
	}
	result := injector.Inject(pod, ns)
	switch {
	case result.Denied():
		return denied(name, result)
	case !result.Inject:
		return skipped(name, pod, result)
	}
	return injected(name, result)
}

func checkRequest(req admission.Request) error {
	pods := metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}
	if req.Operation != admissionv1.Create || req.Kind != pods || req.SubResource != "" {
		return fmt.Errorf("%s of %s %q: not for this webhook; accepted: CREATE of v1 Pod",
			clip(string(req.Operation), longestName), clip(req.Kind.Kind, longestName), clip(req.SubResource, longestName))
	}
	return nil
}

// decode reads the pod of a request. Fields that this version of the Go types does
// not know are no error: an API server may be newer, and the patch does not touch
// them.
func (h *Handler) decode(request admission.Request) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	if err := h.decoder.Decode(request, pod); err != nil {
		return nil, fmt.Errorf("decode pod %q: %w", clip(request.Name, longestName), err)
	}
	// A controller's pods come without a namespace of their own.
	if pod.Namespace == "" {
		pod.Namespace = request.Namespace
	}
	if pod.Namespace != request.Namespace {
		return nil, fmt.Errorf("the pod is of namespace %q and the request of %q; accepted: one of the two",
			clip(pod.Namespace, longestName), clip(request.Namespace, longestName))
	}
	return pod, nil
}

// podName returns the pod's name, or its generateName.
func podName(pod *corev1.Pod) string {
	if pod.Name == "" {
		return pod.GenerateName
	}
	return pod.Name
}

func newScheme() *kruntime.Scheme {
	scheme := kruntime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), admissionregistrationv1.AddToScheme(scheme)); err != nil {
		panic("the API's types contradict each other: " + err.Error())
	}
	return scheme
}
