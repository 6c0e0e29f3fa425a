//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// apiServer is what an API server does with a new pod: it sends it to the
// webhook over HTTPS, and applies the patch that comes back.
type apiServer struct {
	client *http.Client
	url    string
	server *http.Server
}

// startWebhook serves a webhook's handler on loopback, with a certificate that
// is made for it and is nowhere but in memory.
func startWebhook(ctx context.Context, handler http.Handler, path string) (*apiServer, error) {
	certificate, roots, err := selfSigned()
	if err != nil {
		return nil, fmt.Errorf("making the webhook's certificate: %w", err)
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for the webhook: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle(path, handler)
	api := &apiServer{
		server: &http.Server{
			Handler: mux, ReadHeaderTimeout: reviewTime, ErrorLog: log.New(io.Discard, "", 0),
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13},
		},
		client: &http.Client{
			Timeout:   reviewTime,
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}},
		},
		url: "https://" + listener.Addr().String() + path,
	}
	go func() { _ = api.server.ServeTLS(listener, "", "") }()
	return api, nil
}

// reviewTime is Kubernetes' default for a webhook's answer.
const reviewTime = 10 * time.Second

func (a *apiServer) close() {
	a.client.CloseIdleConnections()
	_ = a.server.Close()
}

// selfSigned makes a certificate for 127.0.0.1, and the roots that trust it.
func selfSigned() (tls.Certificate, *x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "shunt-webhook"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, roots, nil
}

// verdict is what became of a pod.
type verdict struct {
	pod      *corev1.Pod // as it is to be stored; nil when it was refused
	patched  int         // operations
	refused  string      // why
	reason   string      // as the webhook has it for the audit log
	warnings []string
}

// create sends a pod to the webhook as kubectl's request to create it would.
func (a *apiServer) create(ctx context.Context, pod *corev1.Pod) (verdict, error) {
	raw, err := json.Marshal(pod)
	if err != nil {
		return verdict{}, fmt.Errorf("encoding the pod: %w", err)
	}
	answer, err := a.review(ctx, &admissionv1.AdmissionRequest{
		UID:       types.UID(fmt.Sprintf("demo-%s-%s%s", pod.Namespace, pod.Name, pod.GenerateName)),
		Kind:      metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
		Resource:  metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
		Name:      pod.Name,
		Namespace: pod.Namespace,
		Operation: admissionv1.Create,
		Object:    runtime.RawExtension{Raw: raw},
	})
	if err != nil {
		return verdict{}, err
	}
	result := verdict{warnings: answer.Warnings, reason: answer.AuditAnnotations["reason"]}
	if !answer.Allowed {
		result.refused = answer.Result.Message
		return result, nil
	}
	if raw, result.patched, err = applyPatch(raw, answer); err != nil {
		return result, err
	}
	result.pod = &corev1.Pod{}
	if err := json.Unmarshal(raw, result.pod); err != nil {
		return result, fmt.Errorf("decoding the patched pod: %w", err)
	}
	if result.pod.Name == "" {
		result.pod.Name = result.pod.GenerateName + "demo" // in place of random letters
	}
	return result, nil
}

// review sends one AdmissionReview and returns the response in the other.
func (a *apiServer) review(ctx context.Context, request *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: request,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding the review: %w", err)
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("asking the webhook: %w", err)
	}
	post.Header.Set("Content-Type", "application/json")
	response, err := a.client.Do(post)
	if err != nil {
		return nil, fmt.Errorf("asking the webhook: %w", err)
	}
	defer response.Body.Close()
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(response.Body).Decode(&review); err != nil {
		return nil, fmt.Errorf("decoding the webhook's answer, %s: %w", response.Status, err)
	}
	if review.Response == nil || review.Response.UID != request.UID {
		return nil, fmt.Errorf("the webhook answered another review than %s", request.UID)
	}
	if !review.Response.Allowed && review.Response.Result == nil {
		return nil, fmt.Errorf("the webhook refused %s without a reason", request.UID)
	}
	return review.Response, nil
}

func applyPatch(raw []byte, answer *admissionv1.AdmissionResponse) (patched []byte, operations int, err error) {
	if len(answer.Patch) == 0 {
		return raw, 0, nil
	}
	if answer.PatchType == nil || *answer.PatchType != admissionv1.PatchTypeJSONPatch {
		return nil, 0, fmt.Errorf("patch type %v; accepted: %s", answer.PatchType, admissionv1.PatchTypeJSONPatch)
	}
	patch, err := jsonpatch.DecodePatch(answer.Patch)
	if err != nil {
		return nil, 0, fmt.Errorf("decoding the patch: %w", err)
	}
	if patched, err = patch.Apply(raw); err != nil {
		return nil, 0, fmt.Errorf("applying the patch: %w", err)
	}
	return patched, len(patch), nil
}
