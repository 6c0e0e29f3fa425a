package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	kjson "sigs.k8s.io/json"
)

const (
	// maxBody is far above what an API server sends: it accepts objects of up to 3
	// MiB, and a request to create one holds it once.
	maxBody = 7 << 20

	contentType = "application/json"
)

var reviewType = metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"}

// httpError is the error of an HTTP request without a review to answer. Its answer
// is a Status, as API servers write it, so that their error has its message.
type httpError struct {
	code   int32
	reason metav1.StatusReason
	err    error
}

func badRequest(format string, args ...any) *httpError {
	return &httpError{http.StatusBadRequest, metav1.StatusReasonBadRequest, fmt.Errorf(format, args...)}
}

// timeFor returns how long an answer may take: as long as the client waits, which
// API servers state, but at most h.timeout.
func (h *Handler) timeFor(r *http.Request) time.Duration {
	if said, err := time.ParseDuration(r.URL.Query().Get("timeout")); err == nil && said > 0 {
		return min(said, h.timeout)
	}
	return h.timeout
}

// receive reads the body of a request. The body has to be released even after an
// error.
func (h *Handler) receive(ctx context.Context, w http.ResponseWriter, r *http.Request) (*body, *httpError) {
	// A writer without deadlines has no connection.
	control := http.NewResponseController(w)
	b := h.intake.register(func() { _ = control.SetReadDeadline(time.Unix(1, 0)) })
	if wrong := checkHeader(w.Header(), r); wrong != nil {
		b.arrived()
		return b, wrong
	}
	// A body that does not arrive must not hold a connection for ever.
	if deadline, set := ctx.Deadline(); set {
		_ = control.SetReadDeadline(deadline)
	}
	wrong := readBody(ctx, b, w, r)
	if wrong == nil {
		// From here on the connection is read to notice when the client goes away.
		_ = control.SetReadDeadline(time.Time{})
	}
	return b, wrong
}

func checkHeader(answer http.Header, r *http.Request) *httpError {
	if r.Method != http.MethodPost {
		answer.Set("Allow", http.MethodPost)
		return &httpError{
			http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, fmt.Errorf("method %s: accepted: POST", r.Method),
		}
	}
	unsupported := func(header, accepted string) *httpError {
		return &httpError{
			http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType,
			fmt.Errorf("%s %q: accepted: %s", header, r.Header.Get(header), accepted),
		}
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != contentType {
		return unsupported("Content-Type", contentType)
	}
	// No API server compresses what it sends to a webhook.
	if coding := r.Header.Get("Content-Encoding"); coding != "" && coding != "identity" {
		answer.Set("Accept-Encoding", "identity")
		return unsupported("Content-Encoding", "identity")
	}
	return nil
}

func readBody(ctx context.Context, b *body, w http.ResponseWriter, r *http.Request) *httpError {
	tooLarge := tooLarge("the body is too large; accepted: up to %d bytes", maxBody)
	if r.ContentLength > maxBody {
		b.arrived()
		return tooLarge
	}
	err := b.read(ctx, http.MaxBytesReader(w, r.Body, maxBody), r.ContentLength)
	var limit *http.MaxBytesError
	switch {
	case errors.As(err, &limit):
		return tooLarge
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, errEvicted):
		return &httpError{
			http.StatusRequestTimeout, metav1.StatusReasonTimeout,
			fmt.Errorf("the body did not arrive in time: %d bytes of it did: %w", len(b.bytes), err),
		}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return badRequest("the body ends after %d of %d bytes", len(b.bytes), r.ContentLength)
	case err != nil:
		return badRequest("read the body: %w", err)
	case len(b.bytes) == 0:
		return badRequest("the body is empty; accepted: an AdmissionReview of %s", reviewType.APIVersion)
	case !utf8.Valid(b.bytes):
		// A decoder would replace the invalid characters, and the patch would be
		// for another pod than the API server has.
		return badRequest("the body is no UTF-8; accepted: JSON")
	}
	return nil
}

func tooLarge(format string, args ...any) *httpError {
	return &httpError{http.StatusRequestEntityTooLarge, metav1.StatusReasonRequestEntityTooLarge, fmt.Errorf(format, args...)}
}

// review is the part of an AdmissionReview that is read. As in pods, unknown fields
// are no error; they take no memory.
type review struct {
	metav1.TypeMeta
	Request *struct {
		UID         types.UID               `json:"uid"`
		Kind        metav1.GroupVersionKind `json:"kind"`
		SubResource string                  `json:"subResource"`
		Name        string                  `json:"name"`
		Namespace   string                  `json:"namespace"`
		Operation   admissionv1.Operation   `json:"operation"`
		UserInfo    struct {
			Username string `json:"username"`
		} `json:"userInfo"`
		Object borrowed `json:"object"`
		DryRun *bool    `json:"dryRun"`
	} `json:"request"`
}

// borrowed is JSON that stays in the body's memory.
type borrowed []byte

// UnmarshalJSON keeps a reference to the text, which is valid as long as the body.
func (b *borrowed) UnmarshalJSON(text []byte) error {
	if string(text) != "null" {
		*b = text
	}
	return nil
}

// decodeReview returns the request of an AdmissionReview, in the one version that
// the manifests name. The request shares the body's memory.
func decodeReview(body []byte) (*admissionv1.AdmissionRequest, *httpError) {
	var read review
	err := kjson.UnmarshalCaseSensitivePreserveInts(body, &read)
	switch said := read.Request; {
	case err != nil:
		return nil, badRequest("decode the AdmissionReview: %w", err)
	case read.TypeMeta != reviewType:
		return nil, badRequest("kind %q of %q: accepted: %s of %s", clip(read.Kind, longestName), clip(read.APIVersion, longestName),
			reviewType.Kind, reviewType.APIVersion)
	case said == nil:
		return nil, badRequest("the AdmissionReview has no request")
	case said.UID == "":
		return nil, badRequest("the AdmissionReview's request has no uid")
	case len(said.UID) > longestName:
		return nil, badRequest("the uid of the AdmissionReview's request is too long; accepted: up to %d bytes", longestName)
	default:
		return &admissionv1.AdmissionRequest{
			UID: said.UID, Kind: said.Kind, SubResource: said.SubResource, Name: said.Name, Namespace: said.Namespace,
			Operation: said.Operation, UserInfo: authenticationv1.UserInfo{Username: said.UserInfo.Username},
			Object: runtime.RawExtension{Raw: said.Object}, DryRun: said.DryRun,
		}, nil
	}
}

// status returns the Status for the client. An API server passes its message on.
func (e *httpError) status() metav1.Status {
	return metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Code: e.code, Reason: e.reason, Message: "shunt-webhook: " + clip(e.err.Error(), maxMessage),
	}
}

const (
	// answersMemory bounds the memory of all answers larger than largeAnswer that
	// clients have not read yet. A usual answer takes some tens of kB.
	answersMemory = 16 << 20
	largeAnswer   = 64 << 10
	// sendTime is how long a client may take to read its answer.
	sendTime = 10 * time.Second
)

// send writes an answer. If that fails, nobody is left to tell.
func (h *Handler) send(ctx context.Context, log logr.Logger, w http.ResponseWriter, code int32, answer any) {
	body, err := json.Marshal(answer)
	if err != nil {
		log.Error(err, "encode an answer")
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if len(body) > largeAnswer {
		size := min(int64(len(body)), answersMemory)
		if err := h.answers.Acquire(ctx, size); err != nil {
			log.V(1).Info("the client went before its answer", "error", err.Error())
			return
		}
		defer h.answers.Release(size)
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(sendTime))
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(int(code))
	if _, err := w.Write(body); err != nil {
		log.V(1).Info("the client went before its answer", "error", err.Error())
	}
}
