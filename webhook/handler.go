package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/semaphore"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
)

// Path is where the webhook is served; the manifest in config/webhook has it too.
const Path = "/mutate--v1-pod"

// NamespaceGetter looks a namespace up.
type NamespaceGetter interface {
	// Namespace returns the named namespace, or an error where it cannot be
	// known what it says: pods are then refused, because none may slip past
	// a namespace that asks for the proxy.
	Namespace(ctx context.Context, name string) (annotation.Namespace, error)
}

// answerTime bounds what an answer may wait for; Kubernetes' default for a
// webhook that names no timeout.
const answerTime = 10 * time.Second

// Handler answers requests to create pods. It keeps nothing between requests,
// and nothing depends on an answer having been asked for, so a dry run is
// answered as any other; only Events are not written for it.
type Handler struct {
	current    current
	namespaces NamespaceGetter
	events     *announcer
	metrics    *Metrics
	decoder    admission.Decoder
	within     time.Duration // answerTime
	intake     *intake
	// turns bounds how many answers are worked out at once. That takes a
	// processor and memory, so more at once than there are processors would
	// have all wait for all. A turn is so much memory.
	turns *semaphore.Weighted
	// answers bounds the memory of large answers that clients have yet to read.
	answers *semaphore.Weighted
}

// NewHandler returns a Handler that injects by cfg, which must have passed
// Validate, and counts into metrics. It writes no Events.
func NewHandler(cfg config.Config, namespaces NamespaceGetter, metrics *Metrics) *Handler {
	h := &Handler{
		namespaces: namespaces, metrics: metrics, decoder: admission.NewDecoder(newScheme()), within: answerTime,
		intake: newIntake(bodiesMemory, func() { metrics.drop(droppedBody) }),
		turns:  semaphore.NewWeighted(workMemory), answers: semaphore.NewWeighted(answersMemory),
	}
	h.SetConfig(cfg)
	return h
}

// SetConfig has requests from now on go by cfg, which must have passed
// Validate. Those under way end as they began.
func (h *Handler) SetConfig(cfg config.Config) { h.current.configure(cfg) }

// asks reports whether a namespace asks for the injector as it is now.
func (h *Handler) asks(ns annotation.Namespace) bool {
	injector := h.current.injector.Load()
	return injector != nil && injector.Asks(ns)
}

// RecordEvents has an Event written for each pod that is refused and each
// request that failed, about the pod's controller: the pod itself never
// becomes. To be called before the first request.
func (h *Handler) RecordEvents(recorder events.EventRecorder) { h.events = newAnnouncer(recorder) }

// AnswerWithin has answers take longer than 10 s, where their clients wait for
// them. To be called before the first request.
func (h *Handler) AnswerWithin(most time.Duration) { h.within = most }

// HTTP serves the Handler's answers, as Path of a webhook server does: an
// AdmissionReview for an AdmissionReview, and a Status with a code from 400 on
// for what is none. Each request is a line of the log and a count. TLS, which
// an API server insists on, is the caller's.
//
// The end of a request's context is that its client has gone, and ends the work
// on it. What is under way when a server is told to stop is still answered, so
// the context that tells it must not be the server's BaseContext.
func (h *Handler) HTTP(log logr.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		ctx, cancel := context.WithTimeout(r.Context(), h.timeFor(r))
		defer cancel()
		body, wrong := h.receive(ctx, w, r)
		defer body.release()
		var request *admissionv1.AdmissionRequest
		if wrong == nil {
			request, wrong = h.open(ctx, body)
		}
		if wrong != nil {
			reason := failureUndecodable
			if wrong.code == http.StatusServiceUnavailable {
				reason = failureAbandoned
			}
			h.metrics.observe(verdictFailed, reason, time.Since(start), 0)
			log.Info(string(verdictFailed), "reason", reason, "code", wrong.code, "error", clip(wrong.err.Error(), maxLogged),
				"remote", r.RemoteAddr, "durationSeconds", time.Since(start).Seconds())
			h.send(ctx, log, w, wrong.code, wrong.status())
			return
		}
		a := h.complete(ctx, admission.Request{AdmissionRequest: *request})
		body.release()
		took := time.Since(start)
		h.metrics.observe(a.verdict, a.reason, took, len(a.response.Patch))
		a.log(log, request, took)
		if r.Context().Err() == nil {
			review := admissionv1.AdmissionReview{TypeMeta: reviewType, Response: &a.response.AdmissionResponse}
			h.send(r.Context(), log, w, http.StatusOK, review)
		}
		h.announce(request, a)
	})
}

// open reads the request in a body.
func (h *Handler) open(ctx context.Context, b *body) (*admissionv1.AdmissionRequest, *httpError) {
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

// announce tells whoever looks at the pod's controller why there is no pod.
func (h *Handler) announce(request *admissionv1.AdmissionRequest, a answer) {
	if a.verdict != verdictDenied && a.verdict != verdictFailed || isDryRun(request) {
		return
	}
	if owner := reference(request.Namespace, a.owner); owner != nil {
		h.events.warn(owner, a.reason, actionInject, fmt.Sprintf("pod %q: %s", a.pod, a.response.Result.Message))
	}
}

func isDryRun(request *admissionv1.AdmissionRequest) bool {
	return request.DryRun != nil && *request.DryRun
}

// complete answers one request, with all that an AdmissionReview needs.
func (h *Handler) complete(ctx context.Context, req admission.Request) answer {
	a := h.safely(ctx, req)
	if err := a.response.Complete(req); err != nil {
		panic("it encodes response.Patches only, and there are none: " + err.Error())
	}
	fit(&a.response.AdmissionResponse)
	return a
}

// safely answers one request even where the answer panics: the pod is refused
// with a reason, not by a connection that breaks off.
func (h *Handler) safely(ctx context.Context, req admission.Request) (a answer) {
	name, owner := req.Name, (*metav1.OwnerReference)(nil)
	looked := false // at the pod
	defer func() {
		if cause := recover(); cause != nil {
			if !looked {
				name, owner = h.who(req)
			}
			a = failed(name, failurePanic, http.StatusInternalServerError, fmt.Errorf("panic: %v", cause))
			a.stack = string(debug.Stack())
		}
		a.owner = owner
	}()
	if err := checkRequest(req); err != nil {
		return failed(name, failureUndecodable, http.StatusBadRequest, err)
	}
	// The namespace before the pod: a pod that waits takes memory.
	ns, lookup := h.namespace(ctx, req.Namespace)
	weight := turn(weigh(req.Object.Raw))
	if err := h.turns.Acquire(ctx, weight); err != nil {
		return failed(name, failureAbandoned, http.StatusGatewayTimeout, errors.Join(fmt.Errorf("wait for a turn: %w", err), lookup))
	}
	defer h.turns.Release(weight)
	looked = true
	pod, err := h.decode(req)
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

// who is a request's pod and its controller, where they can be read.
func (h *Handler) who(req admission.Request) (name string, owner *metav1.OwnerReference) {
	pod, err := h.decode(req)
	if err != nil {
		return req.Name, nil
	}
	return podName(pod), metav1.GetControllerOfNoCopy(pod)
}

// namespace looks a namespace up, and leaves some of the time to say that it
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

// decode reads the pod of a request. Fields that this version of the Go types
// does not know are no error: an API server may be newer, and the patch leaves
// them as they are.
func (h *Handler) decode(req admission.Request) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	if err := h.decoder.Decode(req, pod); err != nil {
		return nil, fmt.Errorf("decode pod %q: %w", clip(req.Name, longestName), err)
	}
	// A controller sends pods without a namespace of their own.
	if pod.Namespace == "" {
		pod.Namespace = req.Namespace
	}
	if pod.Namespace != req.Namespace {
		return nil, fmt.Errorf("the pod is of namespace %q and the request of %q; accepted: one of the two",
			clip(pod.Namespace, longestName), clip(req.Namespace, longestName))
	}
	return pod, nil
}

// podName is the pod's name, or what the API server will begin it with.
func podName(pod *corev1.Pod) string {
	if pod.Name == "" {
		return pod.GenerateName
	}
	return pod.Name
}

func newScheme() *kruntime.Scheme {
	scheme := kruntime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		panic("the core API's types contradict each other: " + err.Error())
	}
	return scheme
}
