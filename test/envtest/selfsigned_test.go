package envtest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/webhook"
)

const selfSignedFolder = "../../config/self-signed"

// replicas are two of the webhook of config/self-signed, as programs, with the
// rights that it ships with; the API server asks the first.
type replicas struct {
	account       *rest.Config
	addresses     []string
	secret        types.NamespacedName
	configuration string
	namespace     string // whose pods the webhook is asked about
	programs      []program
}

// ownRights gives a service account of its own the rights of the manifests, for
// a configuration of another name: that of the suite's webhook is taken.
func (r *replicas) ownRights(ctx context.Context) (kubeconfig []byte) {
	GinkgoHelper()
	objects := objectsFrom(selfSignedFolder)
	const name = "shunt-self-signed"
	subjects := []rbacv1.Subject{{Kind: "ServiceAccount", Name: name, Namespace: r.secret.Namespace}}
	role, cluster := theOne[rbacv1.Role](objects, "Role"), theOne[rbacv1.ClusterRole](objects, "ClusterRole")
	for i := range cluster.Rules {
		if slices.Equal(cluster.Rules[i].ResourceNames, []string{"shunt"}) {
			cluster.Rules[i].ResourceNames = []string{r.configuration}
		}
	}
	binding := theOne[rbacv1.RoleBinding](objects, "RoleBinding")
	clusterBinding := theOne[rbacv1.ClusterRoleBinding](objects, "ClusterRoleBinding")
	role.Name, cluster.Name, binding.Name, clusterBinding.Name = name, name, name, name
	binding.RoleRef.Name, clusterBinding.RoleRef.Name = name, name
	binding.Subjects, clusterBinding.Subjects = subjects, subjects
	for _, object := range []client.Object{role, cluster, binding, clusterBinding, theOne[corev1.Secret](objects, "Secret")} {
		Expect(api.Create(ctx, object)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(api.Delete(ctx, object)).To(Succeed()) })
	}
	user, err := environment.AddUser(envtest.User{
		Name:   "system:serviceaccount:" + r.secret.Namespace + ":" + name,
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + r.secret.Namespace},
	}, admin)
	Expect(err).NotTo(HaveOccurred())
	r.account = user.Config()
	kubeconfig, err = user.KubeConfig()
	Expect(err).NotTo(HaveOccurred())
	return kubeconfig
}

// register has the API server ask the first replica about the pods of a
// namespace, and trust nobody for it so far.
func (r *replicas) register(ctx context.Context) {
	GinkgoHelper()
	configuration := theOne[admissionregistrationv1.MutatingWebhookConfiguration](
		objectsFrom(selfSignedFolder), "MutatingWebhookConfiguration")
	_, port, err := net.SplitHostPort(r.addresses[0])
	Expect(err).NotTo(HaveOccurred())
	served := url.URL{Scheme: "https", Host: net.JoinHostPort("localhost", port), Path: webhook.Path}
	configuration.Name = r.configuration
	for i := range configuration.Webhooks {
		configuration.Webhooks[i].ClientConfig = admissionregistrationv1.WebhookClientConfig{URL: new(served.String())}
		configuration.Webhooks[i].NamespaceSelector = &metav1.LabelSelector{
			MatchLabels: map[string]string{"kubernetes.io/metadata.name": r.namespace},
		}
	}
	Expect(api.Create(ctx, configuration)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) { Expect(api.Delete(ctx, configuration)).To(Succeed()) })
}

// start starts both replicas at once, with the arguments that ship.
func (r *replicas) start(ctx context.Context, kubeconfig []byte) {
	GinkgoHelper()
	binary := buildProgram(ctx)
	var args []string
	for _, arg := range theOne[appsv1.Deployment](objectsFrom(selfSignedFolder), "Deployment").Spec.Template.Spec.Containers[0].Args {
		if strings.HasPrefix(arg, "--self-signed") {
			args = append(args, arg)
		}
	}
	Expect(args).NotTo(BeEmpty())
	args = append(args, "--self-signed-configuration="+r.configuration, "--self-signed-names=shunt-webhook.shunt-system.svc,localhost")
	for _, address := range r.addresses {
		replica := append(slices.Clone(args), "--cert-dir="+GinkgoT().TempDir())
		r.programs = append(r.programs, runProgram(ctx, binary, kubeconfig, "", address, replica...))
	}
}

// held is what the Secret holds.
func (r *replicas) held(ctx context.Context) *corev1.Secret {
	GinkgoHelper()
	secret := &corev1.Secret{}
	Expect(api.Get(ctx, r.secret, secret)).To(Succeed())
	return secret
}

// trusted are the CAs by which the API server knows the webhooks.
func (r *replicas) trusted(ctx context.Context) (bundles []string) {
	GinkgoHelper()
	configuration := &admissionregistrationv1.MutatingWebhookConfiguration{}
	Expect(api.Get(ctx, types.NamespacedName{Name: r.configuration}, configuration)).To(Succeed())
	for _, w := range configuration.Webhooks {
		bundles = append(bundles, string(w.ClientConfig.CABundle))
	}
	return slices.Compact(bundles)
}

// served is the certificate that a replica shows.
func served(g Gomega, address string) *x509.Certificate {
	dialer := tls.Dialer{
		NetDialer: &net.Dialer{Timeout: time.Second}, Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13},
	}
	connection, err := dialer.Dial("tcp", address)
	g.Expect(err).NotTo(HaveOccurred())
	defer connection.Close()
	return connection.(*tls.Conn).ConnectionState().PeerCertificates[0]
}

func parsed(g Gomega, text []byte) *x509.Certificate {
	block, _ := pem.Decode(text)
	g.Expect(block).NotTo(BeNil(), "no certificate")
	certificate, err := x509.ParseCertificate(block.Bytes)
	g.Expect(err).NotTo(HaveOccurred())
	return certificate
}

// settles waits until the Secret holds a certificate other than some, which
// both replicas serve and the API server trusts, and returns what it holds.
func (r *replicas) settles(ctx context.Context, than ...[]byte) *corev1.Secret {
	GinkgoHelper()
	var secret *corev1.Secret
	Eventually(ctx, func(g Gomega) {
		secret = r.held(ctx)
		is := parsed(g, secret.Data[corev1.TLSCertKey])
		g.Expect(than).NotTo(ContainElement(secret.Data[corev1.TLSCertKey]), "still the old one")
		for _, address := range r.addresses {
			g.Expect(served(g, address).Equal(is)).To(BeTrue(), "another one is served at %s", address)
		}
		g.Expect(r.trusted(ctx)).To(Equal([]string{string(secret.Data["ca.crt"])}))
		g.Expect(is.CheckSignatureFrom(parsed(g, secret.Data["ca.crt"]))).To(Succeed())
	}).WithTimeout(40 * time.Second).WithPolling(100 * time.Millisecond).Should(Succeed())
	return secret
}

// create makes a pod; one that is admitted has the proxy, whatever happens.
func (r *replicas) create(ctx context.Context) error {
	GinkgoHelper()
	pod := labelled(newPod(r.namespace, nil), map[string]string{annotation.InjectKey: "true"})
	err := api.Create(ctx, pod)
	if err == nil {
		Expect(injectedBy(pod)).To(Equal("default"), "admitted without the proxy")
	}
	return err
}

// creates waits until pods are injected.
func (r *replicas) creates(ctx context.Context) {
	GinkgoHelper()
	Eventually(ctx, r.create).WithArguments(ctx).WithTimeout(20 * time.Second).WithPolling(100 * time.Millisecond).Should(Succeed())
}

// expiring is a certificate for both names that ends in ten days, made by the
// CA of the Secret.
func expiring(ca *corev1.Secret) (certificate, key []byte) {
	GinkgoHelper()
	authority, err := tls.X509KeyPair(ca.Data["ca.crt"], ca.Data["ca.key"])
	Expect(err).NotTo(HaveOccurred())
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	Expect(err).NotTo(HaveOccurred())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 0, 10),
		DNSNames: []string{"shunt-webhook.shunt-system.svc", "localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	made, err := x509.CreateCertificate(rand.Reader, template, authority.Leaf, own.Public(), authority.PrivateKey)
	Expect(err).NotTo(HaveOccurred())
	private, err := x509.MarshalPKCS8PrivateKey(own)
	Expect(err).NotTo(HaveOccurred())
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
}

var _ = Describe("a webhook that makes its own certificate", Ordered, func() {
	r := &replicas{configuration: "shunt-self-signed"}

	BeforeAll(func(ctx SpecContext) {
		made := theOne[corev1.Secret](objectsFrom(selfSignedFolder), "Secret")
		r.secret = types.NamespacedName{Namespace: shuntNamespace(ctx), Name: made.Name}
		r.namespace = newNamespace(ctx, nil)
		r.addresses = []string{freeAddress(), freeAddress()}
		kubeconfig := r.ownRights(ctx)
		r.register(ctx)
		// Until the API server has a CA to trust, a pod that is to have the proxy does not start.
		Eventually(ctx, r.create).WithArguments(ctx).WithTimeout(10 * time.Second).WithPolling(100 * time.Millisecond).
			Should(MatchError(ContainSubstring("failed calling webhook")))
		life, end := context.WithCancel(context.Background())
		DeferCleanup(end)
		r.start(life, kubeconfig)
	})

	It("is ready within seconds, both replicas with one certificate, and injects", func(ctx SpecContext) {
		for _, p := range r.programs {
			p.becomesReady(ctx)
		}
		is := parsed(Default, r.settles(ctx).Data[corev1.TLSCertKey])
		Expect(is.DNSNames).To(Equal([]string{"shunt-webhook.shunt-system.svc", "localhost"}))
		Expect(time.Until(is.NotAfter)).To(BeNumerically("~", 365*24*time.Hour, 2*24*time.Hour))
		r.creates(ctx)
	})

	It("leaves at rest what is good: the replicas do not undo one another's work", func(ctx SpecContext) {
		versions := func() []string {
			configuration := &admissionregistrationv1.MutatingWebhookConfiguration{}
			Expect(api.Get(ctx, types.NamespacedName{Name: r.configuration}, configuration)).To(Succeed())
			return []string{r.held(ctx).ResourceVersion, configuration.ResourceVersion}
		}
		before := versions()
		Consistently(ctx, versions).WithTimeout(3 * time.Second).WithPolling(200 * time.Millisecond).Should(Equal(before))
	})

	It("renews a certificate that is near its end, and refuses no pod meanwhile", func(ctx SpecContext) {
		before := r.settles(ctx)
		ending := before.DeepCopy()
		ending.Data[corev1.TLSCertKey], ending.Data[corev1.TLSPrivateKeyKey] = expiring(before)
		Expect(api.Update(ctx, ending)).To(Succeed())
		created, stop := make(chan int), make(chan struct{})
		go func() {
			defer GinkgoRecover()
			for n := 0; ; n++ {
				select {
				case created <- n:
					return
				default:
				}
				select {
				case <-stop:
					created <- n
					return
				default:
					Expect(r.create(ctx)).To(Succeed(), "pod %d", n)
				}
			}
		}()
		after := r.settles(ctx, before.Data[corev1.TLSCertKey], ending.Data[corev1.TLSCertKey])
		close(stop)
		Expect(<-created).To(BeNumerically(">", 0))
		Expect(after.Data["ca.crt"]).To(Equal(before.Data["ca.crt"]))
		Expect(time.Until(parsed(Default, after.Data[corev1.TLSCertKey]).NotAfter)).To(BeNumerically(">", 300*24*time.Hour))
	})

	It("makes all anew when the CA is gone, and admits no pod without the proxy", func(ctx SpecContext) {
		before := r.settles(ctx)
		empty := before.DeepCopy()
		empty.Data = nil
		Expect(api.Update(ctx, empty)).To(Succeed())
		for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); {
			if err := r.create(ctx); err != nil {
				Expect(err).To(MatchError(ContainSubstring("failed calling webhook")))
			}
		}
		after := r.settles(ctx, before.Data[corev1.TLSCertKey])
		Expect(after.Data["ca.crt"]).NotTo(Equal(before.Data["ca.crt"]))
		r.creates(ctx)
	})

	It("may see and change its own Secret and webhook configuration, and no other", func(ctx SpecContext) {
		own, err := client.New(r.account, client.Options{Scheme: scheme.Scheme})
		Expect(err).NotTo(HaveOccurred())
		byName := client.MatchingFields{"metadata.name": r.secret.Name}
		Expect(own.List(ctx, list("SecretList"), client.InNamespace(r.secret.Namespace), byName)).To(Succeed())
		for _, options := range [][]client.ListOption{
			{client.InNamespace(r.secret.Namespace)}, {byName}, {client.InNamespace(r.namespace), byName},
		} {
			Expect(own.List(ctx, list("SecretList"), options...)).To(MatchError(ContainSubstring("forbidden")))
		}
		theirs := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "shunt"}}
		Expect(own.Get(ctx, keyOf(theirs), theirs)).To(MatchError(ContainSubstring("forbidden")))
		Expect(own.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{GenerateName: "x", Namespace: r.secret.Namespace}})).
			To(MatchError(ContainSubstring("forbidden")))
	})
})
