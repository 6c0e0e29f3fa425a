package webhook

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/webhook/patch"
)

// Path is where the webhook is served; the manifest in config/webhook has it too.
const Path = "/mutate--v1-pod"

// NamespaceGetter looks a namespace up.
type NamespaceGetter interface {
	// Namespace returns the named namespace, or an error where it cannot be
	// known what it says: pods are then refused, because none may slip past
	// a namespace that asks for the proxy.
	Namespace(ctx context.Context, name string) (inject.Namespace, error)
}

// Handler answers requests to create pods. It keeps nothing between requests,
// and its answers have no side effects, so a dry run is answered as any other.
type Handler struct {
	injector   *inject.Injector
	namespaces NamespaceGetter
	metrics    *Metrics
	decoder    admission.Decoder
}

var _ admission.Handler = (*Handler)(nil)

// NewHandler returns a Handler that injects by cfg, which must have passed
// Validate, and counts into metrics.
func NewHandler(cfg inject.Config, namespaces NamespaceGetter, metrics *Metrics) *Handler {
	return &Handler{
		injector: inject.NewInjector(cfg), namespaces: namespaces, metrics: metrics, decoder: admission.NewDecoder(newScheme()),
	}
}

// HTTP serves the Handler's answers, as Path of a webhook server does. TLS,
// which an API server insists on, is the caller's.
func (h *Handler) HTTP(log logr.Logger) (http.Handler, error) {
	return admission.StandaloneWebhook(h.admission(), admission.StandaloneOptions{Logger: log})
}

func (h *Handler) admission() *admission.Webhook {
	return &admission.Webhook{Handler: h, LogConstructor: requestLogger}
}

// Handle answers one request, logs the answer and counts it.
func (h *Handler) Handle(ctx context.Context, req admission.Request) admission.Response {
	start := time.Now()
	a := h.answer(ctx, req)
	h.metrics.observe(a.verdict, a.reason, time.Since(start))
	log := logr.FromContextOrDiscard(ctx).WithValues("pod", a.pod, "reason", a.reason)
	switch a.verdict {
	case verdictFailed, verdictRefused:
		log.Info(string(a.verdict), "error", a.response.Result.Message)
	default:
		log.Info(string(a.verdict), "operations", len(a.response.Patches), "warnings", a.response.Warnings)
	}
	return a.response
}

func (h *Handler) answer(ctx context.Context, req admission.Request) answer {
	pod, err := h.decode(req)
	if err != nil {
		return failed(req.Name, failureUndecodable, http.StatusBadRequest, err)
	}
	name := podName(pod)
	ns, err := h.namespaces.Namespace(ctx, pod.Namespace)
	if err != nil {
		return failed(name, failureNamespace, http.StatusInternalServerError,
			fmt.Errorf("look up namespace %q of pod %q: %w", pod.Namespace, name, err))
	}
	result := h.injector.Inject(pod, ns)
	switch {
	case result.Refused():
		return refused(name, result)
	case !result.Inject:
		return skipped(name, pod, result)
	}
	operations, err := patch.Diff(req.Object.Raw, pod, result.Pod)
	if err != nil {
		return failed(name, failurePatch, http.StatusInternalServerError,
			fmt.Errorf("make the patch of pod %q: %w", name, err))
	}
	return injected(name, operations, result)
}

// decode reads the pod of a request. Fields that this version of the Go types
// does not know are no error: an API server may be newer, and the patch leaves
// them as they are.
func (h *Handler) decode(req admission.Request) (*corev1.Pod, error) {
	pods := metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}
	if req.Operation != admissionv1.Create || req.Kind != pods || req.SubResource != "" {
		return nil, fmt.Errorf("%s of %s %q: not for this webhook; accepted: CREATE of v1 Pod",
			req.Operation, req.Kind.Kind, req.SubResource)
	}
	pod := &corev1.Pod{}
	if err := h.decoder.Decode(req, pod); err != nil {
		return nil, fmt.Errorf("decode pod %q: %w", req.Name, err)
	}
	// A controller sends pods without a namespace of their own.
	if pod.Namespace == "" {
		pod.Namespace = req.Namespace
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

func requestLogger(base logr.Logger, req *admission.Request) logr.Logger {
	if req == nil {
		return base
	}
	dryRun := req.DryRun != nil && *req.DryRun
	return base.WithValues("namespace", req.Namespace, "user", req.UserInfo.Username, "dryRun", dryRun, "request", req.UID)
}

func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		panic("the core API's types contradict each other: " + err.Error())
	}
	return scheme
}
