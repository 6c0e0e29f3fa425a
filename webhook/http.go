package webhook

import (
	"bytes"
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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"
)

const (
	// maxBody is far above what an API server sends: it takes objects of up
	// to 3 MiB, and a request to create one holds it once.
	maxBody = 7 << 20
	// bodyTime is how long a body may take to arrive.
	bodyTime = 30 * time.Second

	contentType = "application/json"
)

var reviewType = metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"}

// httpError is an HTTP request that holds no review to answer. Its answer is
// a Status as API servers have them, whose message their error then has.
type httpError struct {
	code   int32
	reason metav1.StatusReason
	err    error
}

func badRequest(format string, args ...any) *httpError {
	return &httpError{http.StatusBadRequest, metav1.StatusReasonBadRequest, fmt.Errorf(format, args...)}
}

// readReview takes the request out of an AdmissionReview of the one version
// that the manifests name.
func readReview(w http.ResponseWriter, r *http.Request, within time.Duration) (*admissionv1.AdmissionRequest, *httpError) {
	if wrong := checkHeader(w.Header(), r); wrong != nil {
		return nil, wrong
	}
	// A body that does not come must not hold a connection for ever. What has
	// no deadlines is no connection.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(within))
	body, wrong := readBody(w, r)
	if wrong != nil {
		return nil, wrong
	}
	return decodeReview(body)
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

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *httpError) {
	tooLarge := &httpError{
		http.StatusRequestEntityTooLarge, metav1.StatusReasonRequestEntityTooLarge,
		fmt.Errorf("the body is too large; accepted: up to %d bytes", maxBody),
	}
	if r.ContentLength > maxBody {
		return nil, tooLarge
	}
	var body bytes.Buffer
	if r.ContentLength > 0 {
		body.Grow(int(r.ContentLength) + bytes.MinRead) // of which ReadFrom wants to have some left at the end
	}
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody))
	var limit *http.MaxBytesError
	switch {
	case errors.As(err, &limit):
		return nil, tooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &httpError{
			http.StatusRequestTimeout, metav1.StatusReasonTimeout,
			fmt.Errorf("the body did not arrive in time: %d bytes of it did", body.Len()),
		}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, badRequest("the body ends after %d of %d bytes", body.Len(), r.ContentLength)
	case err != nil:
		return nil, badRequest("read the body: %w", err)
	case body.Len() == 0:
		return nil, badRequest("the body is empty; accepted: an AdmissionReview of %s", reviewType.APIVersion)
	case !utf8.Valid(body.Bytes()):
		// A decoder would put something else in its place, and the patch
		// would speak of another pod than the API server has.
		return nil, badRequest("the body is no UTF-8; accepted: JSON")
	}
	return body.Bytes(), nil
}

func decodeReview(body []byte) (*admissionv1.AdmissionRequest, *httpError) {
	var review struct {
		metav1.TypeMeta
		Request *admissionv1.AdmissionRequest `json:"request"`
	}
	// Fields that this version does not know are no error, as in pods.
	err := kjson.UnmarshalCaseSensitivePreserveInts(body, &review)
	switch {
	case err != nil:
		return nil, badRequest("decode the AdmissionReview: %w", err)
	case review.TypeMeta != reviewType:
		return nil, badRequest("kind %q of %q: accepted: %s of %s",
			review.Kind, review.APIVersion, reviewType.Kind, reviewType.APIVersion)
	case review.Request == nil:
		return nil, badRequest("the AdmissionReview has no request")
	case review.Request.UID == "":
		return nil, badRequest("the AdmissionReview's request has no uid")
	}
	return review.Request, nil
}

// status is what an API server tells its client of a webhook that answers so.
func (e *httpError) status() metav1.Status {
	return metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Code: e.code, Reason: e.reason, Message: "shunt-webhook: " + e.err.Error(),
	}
}

// send writes an answer. Where that fails, nobody is there any more to be told.
func send(log logr.Logger, w http.ResponseWriter, code int32, answer any) {
	body, err := json.Marshal(answer)
	if err != nil {
		log.Error(err, "encode an answer")
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(int(code))
	if _, err := w.Write(body); err != nil {
		log.V(1).Info("the client went before its answer", "error", err.Error())
	}
}
