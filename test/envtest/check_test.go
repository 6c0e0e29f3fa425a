package envtest_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/shunt-dev/shunt/inject/annotation"
)

// checkedRevision is that of a Shunt that only shunt check looks at.
const checkedRevision = "checked"

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority() authority {
	GinkgoHelper()
	var a authority
	a.certificate, a.key = sign(nil, &x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(1, 0, 0),
	})
	return a
}

// sign has a certificate signed by an authority, or by itself.
func sign(by *authority, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	GinkgoHelper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	Expect(err).NotTo(HaveOccurred())
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	signer := authority{template, key}
	if by != nil {
		signer = *by
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.certificate, &key.PublicKey, signer.key)
	Expect(err).NotTo(HaveOccurred())
	certificate, err := x509.ParseCertificate(der)
	Expect(err).NotTo(HaveOccurred())
	return certificate, key
}

func asPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// pair is a certificate for the host, until a time, as a Secret has it.
func (a authority) pair(host string, until time.Time) map[string][]byte {
	GinkgoHelper()
	certificate, key := sign(&a, &x509.Certificate{
		DNSNames: []string{host}, NotBefore: time.Now().AddDate(0, -2, 0), NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	encoded, err := x509.MarshalECPrivateKey(key)
	Expect(err).NotTo(HaveOccurred())
	return map[string][]byte{
		corev1.TLSCertKey:       asPEM(certificate),
		corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded}),
	}
}

// checkedObjects are those of the overlay for another revision, as those of
// this one.
func checkedObjects() []*unstructured.Unstructured {
	GinkgoHelper()
	objects := objectsFrom(canaryFolder)
	for _, object := range objects {
		text, err := object.MarshalJSON()
		Expect(err).NotTo(HaveOccurred())
		Expect(object.UnmarshalJSON(bytes.ReplaceAll(text, []byte("canary"), []byte(checkedRevision)))).To(Succeed())
	}
	return objects
}

// checkResult is what shunt check prints.
type checkResult struct {
	Failed   int `json:"failed"`
	Findings []struct{ Level, Check, Object, Message string }
}

// lines are the findings about the revision that is checked, and about pods.
func (r checkResult) lines() []string {
	var lines []string
	for _, f := range r.Findings {
		lines = append(lines, fmt.Sprintf("%s %s %s: %s", f.Level, f.Check, f.Object, f.Message))
	}
	return lines
}

// buildShunt returns the command line, built once for all specs.
func buildShunt(ctx context.Context) string {
	GinkgoHelper()
	binary := filepath.Join(files, "shunt")
	if _, err := os.Stat(binary); err != nil {
		output, err := childCommand(ctx, "go", "build", "-buildvcs=false", "-o", binary, "../../cmd/shunt").CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), "%s", output)
	}
	return binary
}

var _ = Describe("shunt check", Ordered, func() {
	const host = "shunt-webhook-" + checkedRevision + ".shunt-" + checkedRevision + ".svc"
	const registered = "MutatingWebhookConfiguration/shunt-" + checkedRevision
	var binary, kubeconfig string
	var trusted authority
	var secret *corev1.Secret
	var configuration *admissionregistrationv1.MutatingWebhookConfiguration
	namespaces := map[string]string{} // by what their pods are

	// shunt runs the program, and returns its exit code.
	shunt := func(ctx context.Context, stdin string, args ...string) (stdout, stderr string, code int) {
		GinkgoHelper()
		var out, problems bytes.Buffer
		command := childCommand(ctx, binary, args...)
		command.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
		command.Stdin, command.Stdout, command.Stderr = strings.NewReader(stdin), &out, &problems
		err := command.Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			Expect(err).NotTo(HaveOccurred())
			return out.String(), problems.String(), 0
		}
		return out.String(), problems.String(), exit.ExitCode()
	}
	check := func(ctx context.Context, args ...string) (checkResult, int) {
		GinkgoHelper()
		stdout, stderr, code := shunt(ctx, "", append([]string{"check", "-o", "json"}, args...)...)
		var result checkResult
		Expect(json.Unmarshal([]byte(stdout), &result)).To(Succeed(), "%s%s", stdout, stderr)
		return result, code
	}
	// put makes a namespace with a pod that has what shunt inject gives it with these flags; without any, nothing.
	put := func(ctx context.Context, what string, flags ...string) {
		GinkgoHelper()
		ns := newNamespace(ctx, map[string]string{annotation.RevisionKey: checkedRevision})
		namespaces[what] = ns
		pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: echo, namespace: " + ns + "}\n" +
			"spec:\n  containers:\n  - name: app\n    image: app\n"
		if len(flags) > 0 {
			text, stderr, code := shunt(ctx, pod, append([]string{"inject", "-f", "-"}, flags...)...)
			Expect(code).To(Equal(0), stderr)
			pod = text
		}
		object := readObject(pod)
		Expect(api.Create(ctx, object)).To(Succeed())
	}

	BeforeAll(func(ctx SpecContext) {
		dir := GinkgoT().TempDir()
		binary, kubeconfig = buildShunt(ctx), filepath.Join(dir, "kubeconfig")
		Expect(os.WriteFile(kubeconfig, environment.KubeConfig, 0o600)).To(Succeed())

		objects := checkedObjects()
		createNamespace(ctx, objects)
		file, older := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "older.yaml")
		text := theOne[corev1.ConfigMap](objects, "ConfigMap").Data["config.yaml"]
		Expect(os.WriteFile(file, []byte(text), 0o600)).To(Succeed())
		own := []string{"--config", file, "--revision", checkedRevision}
		// Before the webhook is registered, which nobody answers here.
		put(ctx, "well", own...)
		old := strings.Replace(text, "registry.invalid/shunt-init:unset", "shunt-init:v0", 1)
		Expect(old).NotTo(Equal(text))
		Expect(os.WriteFile(older, []byte(old), 0o600)).To(Succeed())
		put(ctx, "older", "--config", older, "--revision", checkedRevision)
		put(ctx, "missing")

		trusted = newAuthority()
		secret = &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shunt-" + checkedRevision, Name: "shunt-webhook-cert-" + checkedRevision},
			Type:       corev1.SecretTypeTLS, Data: trusted.pair(host, time.Now().AddDate(0, 1, 0)),
		}
		deployment := theOne[appsv1.Deployment](objects, "Deployment")
		configuration = theOne[admissionregistrationv1.MutatingWebhookConfiguration](objects, "MutatingWebhookConfiguration")
		for i := range configuration.Webhooks {
			configuration.Webhooks[i].ClientConfig.CABundle = asPEM(trusted.certificate)
		}
		for _, object := range []client.Object{
			theOne[corev1.ConfigMap](objects, "ConfigMap"), theOne[corev1.Service](objects, "Service"), deployment, secret, configuration,
		} {
			Expect(api.Create(ctx, object)).To(Succeed(), "%T", object)
			DeferCleanup(func(ctx SpecContext) { Expect(api.Delete(ctx, object)).To(Succeed()) })
		}
		deployment.Status = appsv1.DeploymentStatus{
			Replicas: 2, ReadyReplicas: 2, AvailableReplicas: 2, UpdatedReplicas: 2, ObservedGeneration: 1,
		}
		Expect(api.Status().Update(ctx, deployment)).To(Succeed())
	}, NodeTimeout(2*time.Minute))

	It("finds what is well", func(ctx SpecContext) {
		result, code := check(ctx, "-n", namespaces["well"])
		Expect(result.lines()).To(ContainElements(
			"OK Registration "+registered+": revision checked: revision.shunt.dev, pod.shunt.dev",
			HavePrefix("OK Settings "+registered), HavePrefix("OK Exemptions "+registered),
			MatchRegexp(`^OK Certificate `+host+`:443: in Secret shunt-checked/shunt-webhook-cert-checked \(.*\): valid for \d+ days`),
			"OK CABundle "+registered+": verifies the certificate: revision.shunt.dev, pod.shunt.dev",
			"OK Deployment Deployment/shunt-checked/shunt-webhook-checked: 2 of 2 replicas are available",
			HavePrefix("OK Configuration ConfigMap/shunt-checked/shunt-injector-checked: "),
			"OK Pods "+registered+": up to date: 1",
		))
		// The webhook of the rest of the suite is registered by its address, which is asked.
		Expect(result.lines()).To(ContainElements(
			MatchRegexp(`^(OK|WARN) Certificate [0-9.]+:\d+: served at [0-9.]+:\d+: (expires in|valid for) \d+ days`),
			HavePrefix("OK CABundle MutatingWebhookConfiguration/shunt: verifies the certificate: namespace.shunt.dev, "),
		))
		Expect(result.lines()).NotTo(ContainElement(HavePrefix("FAIL")))
		Expect(code).To(Equal(0))
	})

	It("finds a CA bundle of somebody else", func(ctx SpecContext) {
		wrong := configuration.DeepCopy()
		wrong.Webhooks[0].ClientConfig.CABundle = asPEM(newAuthority().certificate)
		Expect(api.Patch(ctx, wrong, client.MergeFrom(configuration))).To(Succeed())
		result, code := check(ctx, "-n", namespaces["well"])
		Expect(result.lines()).To(ContainElements(
			ContainSubstring("FAIL CABundle "+registered+": revision.shunt.dev: the caBundle does not verify the certificate in Secret"),
			"OK CABundle "+registered+": verifies the certificate: pod.shunt.dev",
		))
		Expect(code).To(Equal(1))
		configuration.ResourceVersion = wrong.ResourceVersion
		Expect(api.Update(ctx, configuration)).To(Succeed())
	})

	It("looks at all namespaces, and prints a table", func(ctx SpecContext) {
		stdout, stderr, code := shunt(ctx, "", "check", "-A")
		Expect(code).To(Equal(1), stderr)
		Expect(stdout).To(HavePrefix("RESULT "))
		for _, what := range []string{"missing", "older"} {
			Expect(stdout).To(ContainSubstring(" Pod/" + namespaces[what] + "/echo "))
		}
		Expect(stdout).NotTo(ContainSubstring(" Pod/" + namespaces["well"] + "/echo "))
		Expect(stderr).To(MatchRegexp(`^shunt: \d+ of \d+ findings are FAIL\n$`))
	})

	It("finds workloads that are denied, and keys that nobody reads", func(ctx SpecContext) {
		ns := newNamespace(ctx, map[string]string{annotation.RevisionKey: checkedRevision})
		labels := map[string]string{"app": "x"}
		template := corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{"sidecar.istio.io/interceptMode": "TPROXY"}},
			Spec:       newPod(ns, nil).Spec,
		}
		meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: ns, Name: name} }
		selector := metav1.SetAsLabelSelector(labels)
		web := &appsv1.Deployment{ObjectMeta: meta("web"), Spec: appsv1.DeploymentSpec{Selector: selector, Template: template}}
		web.Annotations = map[string]string{annotation.InterceptionModeKey: "TPROXY"}
		alone := &appsv1.ReplicaSet{ObjectMeta: meta("alone"), Spec: appsv1.ReplicaSetSpec{Selector: selector, Template: template}}
		db := &appsv1.StatefulSet{ObjectMeta: meta("db"), Spec: appsv1.StatefulSetSpec{Selector: selector, Template: template}}
		agent := &appsv1.DaemonSet{ObjectMeta: meta("agent"), Spec: appsv1.DaemonSetSpec{Selector: selector, Template: template}}
		oldest := &corev1.ReplicationController{
			ObjectMeta: meta("oldest"), Spec: corev1.ReplicationControllerSpec{Selector: labels, Template: &template},
		}
		once := template.DeepCopy()
		once.Spec.RestartPolicy = corev1.RestartPolicyNever
		job := &batchv1.Job{ObjectMeta: meta("job"), Spec: batchv1.JobSpec{Template: *once}}
		nightly := &batchv1.CronJob{ObjectMeta: meta("nightly"), Spec: batchv1.CronJobSpec{
			Schedule: "0 0 * * *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: *once}},
		}}
		for _, object := range []client.Object{web, alone, db, agent, oldest, job, nightly} {
			Expect(api.Create(ctx, object)).To(Succeed(), "%T", object)
		}
		made := &appsv1.ReplicaSet{ObjectMeta: meta("web-5d9"), Spec: alone.Spec}
		made.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(web, appsv1.SchemeGroupVersion.WithKind("Deployment"))}
		Expect(api.Create(ctx, made)).To(Succeed())
		denied := `admission webhook "revision.shunt.dev" denied the request: of `
		web.Status.Conditions = []appsv1.DeploymentCondition{
			{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: denied + "web"},
		}
		Expect(api.Status().Update(ctx, web)).To(Succeed())
		event := &corev1.Event{
			ObjectMeta: meta("db.1"), Reason: "FailedCreate", Type: corev1.EventTypeWarning, Message: denied + "db",
			LastTimestamp:  metav1.Now(),
			InvolvedObject: corev1.ObjectReference{APIVersion: "apps/v1", Kind: "StatefulSet", Namespace: ns, Name: "db", UID: db.UID},
		}
		Expect(api.Create(ctx, event)).To(Succeed())

		result, code := check(ctx, "-n", ns)
		lines := result.lines()
		denial := func(object, of string) string {
			return "FAIL WorkloadDenied " + object + ": its pods are not created: " + denied + of
		}
		Expect(lines).To(ContainElements(denial("Deployment/"+ns+"/web", "web"), denial("StatefulSet/"+ns+"/db", "db")))
		for _, object := range []string{
			"Deployment/" + ns + "/web", "ReplicaSet/" + ns + "/alone", "StatefulSet/" + ns + "/db", "DaemonSet/" + ns + "/agent",
			"ReplicationController/" + ns + "/oldest", "Job/" + ns + "/job", "CronJob/" + ns + "/nightly",
		} {
			Expect(lines).To(ContainElement(SatisfyAll(HavePrefix("WARN Ignored "+object+": spec."),
				ContainSubstring("template.metadata.annotations[sidecar.istio.io/interceptMode]: unknown key"))))
		}
		Expect(lines).To(ContainElement(HavePrefix("WARN Ignored Deployment/" + ns + "/web: metadata.annotations[" +
			annotation.InterceptionModeKey + "]: no effect here")))
		Expect(lines).NotTo(ContainElement(ContainSubstring("web-5d9")))
		Expect(lines).NotTo(ContainElement(HavePrefix("WARN NotChecked")))
		Expect(code).To(Equal(1))
	})

	It("checks what the user may read, and says what that is not", func(ctx SpecContext) {
		const name = "reads-pods"
		role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"namespaces", "pods"}, Verbs: []string{"get", "list"}},
		}}
		binding := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
		}
		for _, object := range []client.Object{role, binding} {
			Expect(api.Create(ctx, object)).To(Succeed(), "%T", object)
			DeferCleanup(func(ctx SpecContext) { Expect(api.Delete(ctx, object)).To(Succeed()) })
		}
		user, err := environment.AddUser(envtest.User{Name: name}, nil)
		Expect(err).NotTo(HaveOccurred())
		text, err := user.KubeConfig()
		Expect(err).NotTo(HaveOccurred())
		file := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
		Expect(os.WriteFile(file, text, 0o600)).To(Succeed())
		result, code := check(ctx, "-n", namespaces["well"], "--kubeconfig", file)
		Expect(code).To(Equal(0))
		var unread []string
		for _, finding := range result.Findings {
			Expect(finding.Check).To(Equal("NotChecked"))
			Expect(finding.Message).To(ContainSubstring(`User "reads-pods" cannot list resource`))
			unread = append(unread, finding.Object)
		}
		Expect(unread).To(Equal([]string{
			"cronjobs.batch", "daemonsets.apps", "deployments.apps", "events", "jobs.batch",
			"mutatingwebhookconfigurations.admissionregistration.k8s.io", "replicasets.apps", "replicationcontrollers", "statefulsets.apps",
		}))
	})

	It("explains a pod by what changed since, and by the label that came later", func(ctx SpecContext) {
		stdout, stderr, code := shunt(ctx, "", "explain", "echo", "-n", namespaces["older"])
		Expect(code).To(Equal(0), stderr)
		Expect(stdout).To(And(
			MatchRegexp(`(?m)^proxy +yes: mode REDIRECT, revision checked, injected by Shunt dev$`),
			MatchRegexp(`(?m)^decided by +namespace label istio.io/rev=checked$`),
			MatchRegexp(`(?m)^Outdated +a new pod would get other settings$`),
			MatchRegexp(`(?m)^initImage +shunt-init:v0 +registry.invalid/shunt-init:unset$`),
			MatchRegexp(`(?m)^shunt-init +not created yet `),
		))

		stdout, stderr, code = shunt(ctx, "", "explain", "pod/echo", "-n", namespaces["well"])
		Expect(code).To(Equal(0), stderr)
		Expect(stdout).To(MatchRegexp(`(?m)^UpToDate `))
		file := &corev1.ConfigMap{}
		key := client.ObjectKey{Namespace: "shunt-" + checkedRevision, Name: "shunt-injector-" + checkedRevision}
		Expect(api.Get(ctx, key, file)).To(Succeed())
		changed := file.DeepCopy()
		changed.Data["config.yaml"] += "\nlogLevel: debug\n"
		Expect(api.Patch(ctx, changed, client.MergeFrom(file))).To(Succeed())
		DeferCleanup(func(ctx SpecContext) {
			file.ResourceVersion = changed.ResourceVersion
			Expect(api.Update(ctx, file)).To(Succeed())
		})
		stdout, stderr, code = shunt(ctx, "", "explain", "echo", "-n", namespaces["well"])
		Expect(code).To(Equal(0), stderr)
		Expect(stdout).To(And(
			MatchRegexp(`(?m)^Outdated `), MatchRegexp(`(?m)^logLevel +warning +debug$`),
			MatchRegexp(`(?m)^logLevel +debug +ConfigMap/shunt-checked/shunt-injector-checked$`),
		))

		ns := newNamespace(ctx, nil)
		pod := newPod(ns, nil)
		pod.Labels = map[string]string{"pod-template-hash": "5b9"}
		pod.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-5b9", UID: "1", Controller: new(true),
		}}
		Expect(api.Create(ctx, pod)).To(Succeed())
		time.Sleep(1100 * time.Millisecond) // Kubernetes' times are whole seconds
		labelled := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}
		Expect(api.Patch(ctx, labelled, client.RawPatch(types.MergePatchType,
			[]byte(`{"metadata":{"labels":{"`+annotation.RevisionKey+`":"`+checkedRevision+`"}}}`)))).To(Succeed())
		stdout, stderr, code = shunt(ctx, "", "explain", "deployment/web", "-n", ns)
		Expect(code).To(Equal(0), stderr)
		Expect(stdout).To(And(
			MatchRegexp(`(?m)^pod +`+ns+"/"+pod.Name+"$"), MatchRegexp(`(?m)^workload +Deployment/web$`), MatchRegexp(`(?m)^proxy +no$`),
			MatchRegexp(`(?m)^Missing .* last changed the namespace with its label istio.io/rev later, at `),
			MatchRegexp(`(?m)^to do +kubectl rollout restart deployment/web -n `+ns),
		))

		_, stderr, code = shunt(ctx, "", "explain", "nobody", "-n", ns)
		Expect(code).To(Equal(1))
		Expect(stderr).To(Equal("shunt: namespace " + ns + " has neither a pod nobody nor a workload of this name with a pod\n"))

		stdout, stderr, code = shunt(ctx, "", "list", "-n", ns)
		Expect(code).To(Equal(0), stderr)
		Expect(stdout).To(MatchRegexp(`(?m)^` + ns +
			` +Deployment/web +1 +0 +- +- +no: 1 without the proxy +namespace label istio.io/rev=checked$`))
		stdout, stderr, code = shunt(ctx, "", "list", "-n", ns, "-o", "restart")
		Expect(code).To(Equal(0), stderr)
		Expect(stdout).To(Equal("kubectl rollout restart deployment/web -n " + ns + "\n"))
		stdout, stderr, code = shunt(ctx, "", "list")
		Expect(code).To(Equal(0), stderr)
		Expect(stdout).To(MatchRegexp(`(?m)^` + namespaces["older"] + ` +Pod/echo +1 +1 +REDIRECT +dev +no: 1 outdated `))
	})

	It("says when it cannot ask", func(ctx SpecContext) {
		_, stderr, code := shunt(ctx, "", "check", "-n", "nowhere-at-all")
		Expect(code).To(Equal(3))
		Expect(stderr).To(ContainSubstring(`"nowhere-at-all" not found`))

		file := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
		Expect(os.WriteFile(file, accountFile, 0o600)).To(Succeed())
		stdout, stderr, code := shunt(ctx, "", "check", "--kubeconfig", file)
		Expect(code).To(Equal(3), stdout+stderr)
		Expect(stderr).To(And(HavePrefix("shunt: ask the cluster: "), ContainSubstring("forbidden")))
	})
})

// readObject reads one object of YAML.
func readObject(text string) *unstructured.Unstructured {
	GinkgoHelper()
	object := &unstructured.Unstructured{}
	Expect(yaml.Unmarshal([]byte(text), &object.Object)).To(Succeed())
	return object
}
