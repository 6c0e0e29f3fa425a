package load_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/shunt-dev/shunt/webhook"
)

const (
	namespace = "shop"
	// atOnce is how many reviews are in flight, each on its own connection: API servers speak
	// HTTP/1.1 to webhooks.
	atOnce = 2000
	// loadTime is how long that lasts.
	loadTime = 5 * time.Second
)

// TestLoad checks that 2,000 reviews can be in flight at once, over some time, and that none fails
// or is not injected, within the memory that the webhook's pod may have.
func TestLoad(t *testing.T) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur < 2*atOnce {
		t.Fatalf("this process may have %d open files, and %d connections take more (ulimit -Hn): %v", files.Cur, atOnce, err)
	}
	container := deployed(t)
	server := startServer(t, container.Env)
	clients := make([]*client, atOnce)
	for i := range clients {
		clients[i] = newClient(t, server, i)
	}
	// The connections first: handshakes take longest, and would keep reviews from being in flight
	// together.
	all(t, "connect", clients, (*client).connect)
	all(t, "be in flight with all others", clients, (*client).review)
	t.Logf("%d reviews were in flight at the same moment, and every pod was injected", atOnce)

	for _, c := range clients {
		c.times = nil
	}
	start := time.Now()
	all(t, "be answered", clients, func(c *client) error {
		for time.Since(start) < loadTime {
			if err := c.review(); err != nil {
				return err
			}
		}
		return nil
	})
	report(t, fmt.Sprintf("%d in flight all the time", atOnce), clients, time.Since(start))

	clients[0].times = nil
	start = time.Now()
	for range 1000 {
		if err := clients[0].review(); err != nil {
			t.Fatal(err)
		}
	}
	report(t, "one at a time", clients[:1], time.Since(start))
	peak := server.peakMemory(t)
	t.Logf("the server took %d MiB at the most", peak>>20)
	if limit := container.Resources.Limits.Memory().Value(); peak > limit {
		t.Errorf("the server took %d bytes, and its container may have %d", peak, limit)
	}
}

// deployed returns the container in which config/manager runs the server.
func deployed(t *testing.T) corev1.Container {
	t.Helper()
	text, err := os.ReadFile("../../config/manager/manager.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var deployment appsv1.Deployment
	if err := yaml.UnmarshalStrict(text, &deployment); err != nil {
		t.Fatal(err)
	}
	return deployment.Spec.Template.Spec.Containers[0]
}

// all lets every client do something at the same time.
func all(t *testing.T, what string, clients []*client, do func(*client) error) {
	t.Helper()
	var group sync.WaitGroup
	errs := make([]error, len(clients))
	for i, c := range clients {
		group.Go(func() { errs[i] = do(c) })
	}
	group.Wait()
	failed := slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(failed) > 0 {
		t.Fatalf("%d of %d could not %s, the first: %v", len(failed), len(clients), what, failed[0])
	}
}

func report(t *testing.T, what string, clients []*client, took time.Duration) {
	t.Helper()
	var times []time.Duration
	for _, c := range clients {
		times = append(times, c.times...)
	}
	slices.Sort(times)
	percentile := func(p int) time.Duration { return times[(len(times)-1)*p/100].Round(10 * time.Microsecond) }
	t.Logf("%s: %d reviews, %.0f a second, p50 %v, p99 %v",
		what, len(times), float64(len(times))/took.Seconds(), percentile(50), percentile(99))
}

// client is one connection of an API server.
type client struct {
	http  *http.Client
	url   string
	uid   types.UID
	body  []byte
	times []time.Duration
	ctx   context.Context
}

func newClient(t *testing.T, server server, number int) *client {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(server.roots) {
		t.Fatal("the server's certificate is none")
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS13},
		Protocols:       new(http.Protocols), MaxConnsPerHost: 1,
	}
	transport.Protocols.SetHTTP1(true)
	t.Cleanup(transport.CloseIdleConnections)
	c := &client{
		http: &http.Client{Transport: transport, Timeout: time.Minute}, url: "https://" + server.address + webhook.Path,
		uid: types.UID(fmt.Sprintf("uid-%d", number)), ctx: t.Context(),
	}
	c.body = reviewOf(t, c.uid)
	return c
}

// reviewOf returns a review of a pod like a Deployment's.
func reviewOf(t *testing.T, uid types.UID) []byte {
	t.Helper()
	pod, err := json.Marshal(&corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: "echo-5d9-", Namespace: namespace, Labels: map[string]string{"app": "echo"},
			OwnerReferences: []metav1.OwnerReference{
				{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "echo-5d9", UID: "uid-of-echo-5d9", Controller: new(true)},
			},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "app", Image: "app", Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
			Env: []corev1.EnvVar{{Name: "MODE", Value: "production"}},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: uid, Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Resource:  metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Operation: admissionv1.Create, Namespace: namespace, Object: runtime.RawExtension{Raw: pod},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// connect leaves a connection open, by a request without a review.
func (c *client) connect() error {
	answer, err := c.do(http.MethodGet, nil)
	if err == nil && answer.code != http.StatusMethodNotAllowed {
		err = fmt.Errorf("code %d: %s", answer.code, answer.body)
	}
	return err
}

// review sends a review, and checks and times the answer.
func (c *client) review() error {
	start := time.Now()
	answer, err := c.do(http.MethodPost, c.body)
	c.times = append(c.times, time.Since(start))
	if err != nil {
		return err
	}
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(answer.body, &review); err != nil {
		return fmt.Errorf("code %d: %w: %s", answer.code, err, answer.body)
	}
	switch response := review.Response; {
	case answer.code != http.StatusOK || response == nil || response.UID != c.uid:
		return fmt.Errorf("code %d, and no response to %s: %s", answer.code, c.uid, answer.body)
	case !response.Allowed:
		return errors.New(response.Result.Message)
	case !bytes.Contains(response.Patch, []byte(`"shunt-proxy"`)):
		return fmt.Errorf("the pod was not injected: %s", response.Patch)
	}
	return nil
}

type answer struct {
	code int
	body []byte
}

func (c *client) do(method string, body []byte) (answer, error) {
	request, err := http.NewRequestWithContext(c.ctx, method, c.url, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, text}, err
}
