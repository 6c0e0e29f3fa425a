package webhook

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

var pairNames = []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey}

// TestWritePair checks that a reader always finds both files of one pair, and that no earlier pair
// stays.
func TestWritePair(t *testing.T) {
	dir := t.TempDir()
	read := func() (pair [2]string) {
		// Resolves the link once for both, like a reader.
		data, err := os.Readlink(filepath.Join(dir, pairLink))
		if err != nil {
			return pair
		}
		for i, name := range pairNames {
			text, err := os.ReadFile(filepath.Join(dir, data, name))
			if err != nil {
				return [2]string{} // just deleted: read again
			}
			pair[i] = string(text)
		}
		return pair
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); {
			if pair := read(); pair[0] != pair[1] {
				t.Errorf("certificate %q beside key %q", pair[0], pair[1])
			}
		}
	}()
	for _, text := range []string{"first", "second", "third"} {
		if err := writePair(dir, map[string][]byte{pairNames[0]: []byte(text), pairNames[1]: []byte(text)}); err != nil {
			t.Fatal(err)
		}
		for _, name := range pairNames {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != text {
				t.Errorf("%s is %q (%v), want %q", name, got, err, text)
			}
		}
		time.Sleep(20 * time.Millisecond) // for the reader to see it; no result depends on it
	}
	<-done
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 4 { // a pair, the link to it, and the two names
		t.Errorf("the folder holds %v", entries)
	}
}

// TestOwnOnly checks that lists and watches are for the objects that the rights cover, and that
// other requests are unchanged.
func TestOwnOnly(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		asked = append(asked, req.Method+" "+req.URL.RequestURI())
	}))
	defer server.Close()
	s := &SelfSigned{Secret: types.NamespacedName{Namespace: "shunt-system", Name: "cert"}, Configuration: "shunt"}
	client, err := rest.HTTPClientFor(s.restrict(&rest.Config{Host: server.URL}))
	if err != nil {
		t.Fatal(err)
	}
	for _, request := range [][2]string{
		{http.MethodGet, "/api/v1/namespaces/shunt-system/secrets?watch=true"},
		{http.MethodGet, "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"},
		{http.MethodGet, "/api/v1/namespaces/other/secrets"},
		{http.MethodPut, "/api/v1/namespaces/shunt-system/secrets/cert"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), request[0], server.URL+request[1], http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
	}
	want := []string{
		"GET /api/v1/namespaces/shunt-system/secrets?fieldSelector=metadata.name%3Dcert&watch=true",
		"GET /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations?fieldSelector=metadata.name%3Dshunt",
		"GET /api/v1/namespaces/other/secrets",
		"PUT /api/v1/namespaces/shunt-system/secrets/cert",
	}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}
