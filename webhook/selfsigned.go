package webhook

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/open-policy-agent/cert-controller/pkg/rotator"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// SelfSigned makes the webhook create its own certificate and renew it 90 days
// before it expires, for a cluster without cert-manager. The certificate is valid
// for a year, its CA for ten.
//
//	Secret (CA, certificate, keys) ─► every replica's CertDir ─► served
//	    └► caBundle of the webhook configuration
//
// Every replica does all of it. The API server lets only one of them change the
// Secret at a time; the others then find it good.
type SelfSigned struct {
	// Secret holds the CA and the certificate. It must exist, even if empty: the
	// right to create one Secret would be the right to create any.
	Secret types.NamespacedName
	// Names are the DNS names by which API servers call the webhook; at least one.
	Names []string
	// Configuration is the name of the MutatingWebhookConfiguration that trusts the
	// CA.
	Configuration string
}

// authority is the name of the CA.
const authority = "shunt-webhook-ca"

// selection restricts the manager's own cache to the one Secret.
func (s *SelfSigned) selection() map[client.Object]cache.ByObject {
	if s == nil {
		return nil
	}
	return map[client.Object]cache.ByObject{&corev1.Secret{}: {
		Namespaces: map[string]cache.Config{s.Secret.Namespace: {}},
		Field:      fields.OneTermEqualSelector("metadata.name", s.Secret.Name),
	}}
}

// add makes the manager create the certificate, and copy it from the Secret to
// opts.CertDir. The returned channel is closed once it is there.
func (s *SelfSigned) add(mgr manager.Manager, opts Options) (<-chan struct{}, error) {
	err := rotator.AddRotator(restrictedManager{mgr, s.restrict(mgr.GetConfig())}, &rotator.CertRotator{
		SecretKey: s.Secret, CertDir: opts.CertDir, CAName: authority, CAOrganization: "shunt",
		DNSName: s.Names[0], ExtraDNSNames: s.Names[1:], IsReady: make(chan struct{}), FieldOwner: reporter,
		Webhooks: []rotator.WebhookInfo{{Name: s.Configuration, Type: rotator.Mutating}},
	})
	if err != nil {
		return nil, fmt.Errorf("create the certificate: %w", err)
	}
	files := &certificateFiles{opts: opts, cache: mgr.GetCache(), written: make(chan struct{})}
	if err := mgr.Add(files); err != nil {
		return nil, fmt.Errorf("copy the certificate from its Secret: %w", err)
	}
	return files.written, nil
}

// restrictedManager is a manager whose API client sees only Shunt's own objects.
type restrictedManager struct {
	manager.Manager
	config *rest.Config
}

// GetConfig returns the config of the cache that the rotator makes.
func (n restrictedManager) GetConfig() *rest.Config { return n.config }

// restrict makes lists and watches ask for one object by its name. The rotator
// would read all Secrets of the namespace and all webhook configurations, and would
// need the rights to them.
func (s *SelfSigned) restrict(config *rest.Config) *rest.Config {
	names := map[string]string{
		"/api/v1/namespaces/" + s.Secret.Namespace + "/secrets":               s.Secret.Name,
		"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations": s.Configuration,
	}
	config = rest.CopyConfig(config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			if name, mine := names[req.URL.Path]; mine && req.Method == http.MethodGet {
				req = req.Clone(req.Context())
				query := req.URL.Query()
				query.Set("fieldSelector", "metadata.name="+name)
				req.URL.RawQuery = query.Encode()
			}
			return next.RoundTrip(req)
		})
	})
	return config
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// certificateFiles copies the certificate from the Secret to CertDir at once. A
// mounted Secret would follow a minute later, and until then API servers that trust
// a new CA would see the old certificate.
type certificateFiles struct {
	opts    Options
	cache   cache.Cache
	written chan struct{}
	once    sync.Once
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica
// serves.
func (*certificateFiles) NeedLeaderElection() bool { return false }

// Start runs until ctx ends.
func (f *certificateFiles) Start(ctx context.Context) error {
	informer, err := f.cache.GetInformer(ctx, &corev1.Secret{})
	if err != nil {
		return fmt.Errorf("watch the certificate's Secret: %w", err)
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    f.write,
		UpdateFunc: func(_, now any) { f.write(now) },
	})
	if err != nil {
		return fmt.Errorf("watch the certificate's Secret: %w", err)
	}
	<-ctx.Done()
	return nil
}

// write writes the certificate of a Secret to CertDir, if the Secret holds one.
func (f *certificateFiles) write(object any) {
	secret, is := object.(*corev1.Secret)
	if !is || len(secret.Data[corev1.TLSCertKey]) == 0 || len(secret.Data[corev1.TLSPrivateKeyKey]) == 0 {
		return
	}
	pair := map[string][]byte{}
	for _, name := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
		pair[name] = secret.Data[name]
	}
	if err := writePair(f.opts.CertDir, pair); err != nil {
		f.opts.Log.Error(err, "the webhook's certificate cannot be kept", "folder", f.opts.CertDir)
		return
	}
	f.once.Do(func() { close(f.written) })
}

// pairLink is the link to the folder of the current pair.
const pairLink = "..data"

// writePair puts files into a folder, all at the same moment, as kubelet does: a
// reader finds a key with its own certificate.
func writePair(dir string, pair map[string][]byte) error {
	next, err := os.MkdirTemp(dir, "..pair-")
	if err != nil {
		return err
	}
	for name, text := range pair {
		if err := os.WriteFile(filepath.Join(next, name), text, 0o600); err != nil {
			return err
		}
	}
	before, link := pairsIn(dir), filepath.Join(dir, pairLink)
	if err := replaceLink(filepath.Base(next), link); err != nil {
		return err
	}
	for name := range pair {
		target := filepath.Join(pairLink, name)
		if is, err := os.Readlink(filepath.Join(dir, name)); err == nil && is == target {
			continue
		}
		if err := replaceLink(target, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	for _, old := range before {
		if old != next {
			if err := os.RemoveAll(old); err != nil {
				return err
			}
		}
	}
	return nil
}

// pairsIn returns the folders of all pairs, also those of earlier processes.
func pairsIn(dir string) []string {
	var pairs []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), "..pair-") {
			pairs = append(pairs, filepath.Join(dir, entry.Name()))
		}
	}
	return pairs
}

func replaceLink(target, link string) error {
	beside := link + ".new"
	if err := os.RemoveAll(beside); err != nil {
		return err
	}
	if err := os.Symlink(target, beside); err != nil {
		return err
	}
	return os.Rename(beside, link)
}
