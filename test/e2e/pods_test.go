package e2e_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	system      = "shunt-system"
	modeKey     = "sidecar.istio.io/interceptionMode"
	statusKey   = "sidecar.istio.io/status"
	enabledKey  = "istio-injection"
	application = "shunt-e2e-app:dev"
	initImage   = "shunt-init:dev" // of testdata/default/config.yaml
)

// newNamespace makes a namespace whose pods are injected, or not, and deletes it when the spec
// ends.
func newNamespace(ctx context.Context, injected bool) string {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-", Labels: map[string]string{}}}
	if injected {
		namespace.Labels[enabledKey] = "enabled"
	}
	Expect(api.Create(ctx, namespace)).To(Succeed())
	name := namespace.Name
	DeferCleanup(func(ctx SpecContext) {
		if CurrentSpecReport().Failed() {
			describe(ctx, name)
		}
		Expect(client.IgnoreNotFound(api.Delete(ctx, namespace))).To(Succeed())
		Eventually(ctx, func() bool {
			return apierrors.IsNotFound(api.Get(ctx, client.ObjectKeyFromObject(namespace), namespace))
		}).WithTimeout(5*time.Minute).WithPolling(500*time.Millisecond).Should(BeTrue(), "the namespace %s stays", name)
	}, NodeTimeout(6*time.Minute))
	Eventually(ctx, func() error {
		return api.Get(ctx, client.ObjectKey{Namespace: name, Name: "default"}, &corev1.ServiceAccount{})
	}).WithTimeout(30 * time.Second).WithPolling(50 * time.Millisecond).Should(Succeed())
	return name
}

// describe prints what helps to understand a failure in a namespace.
func describe(ctx context.Context, namespace string) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second) // the logs of hundreds of pods would use up the cleanup's time
	defer cancel()
	for _, args := range [][]string{
		{"get", "pods", "-o", "wide"}, {"get", "events", "--sort-by=.lastTimestamp"},
		{"logs", "--selector=e2e", "--all-containers", "--prefix", "--tail=20", "--ignore-errors"},
	} {
		out, err := tryKubectl(ctx, append([]string{"-n", namespace}, args...)...)
		GinkgoWriter.Println(out, err)
	}
}

// newPod returns a pod of the tests' application, which serves.
func newPod(namespace, name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, Labels: map[string]string{"e2e": name}, Annotations: map[string]string{},
		},
		Spec: corev1.PodSpec{
			// No test waits for connections to drain.
			TerminationGracePeriodSeconds: new(int64(1)),
			Containers: []corev1.Container{{
				Name: "app", Image: application, ImagePullPolicy: corev1.PullIfNotPresent, Args: []string{"serve"},
			}},
		},
	}
}

// newDeployment runs the pod of newPod.
func newDeployment(namespace, name string) *appsv1.Deployment {
	pod := newPod(namespace, name)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: appsv1.DeploymentSpec{
			Selector: metav1.SetAsLabelSelector(pod.Labels),
			// One at a time, so that answers come from the new pod.
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels, Annotations: pod.Annotations}, Spec: pod.Spec,
			},
		},
	}
}

// newService returns a Service for the pods of newPod or newDeployment with a name.
func newService(namespace, name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"e2e": name}, IPFamilyPolicy: new(corev1.IPFamilyPolicyPreferDualStack),
			Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}
}

// create makes objects.
func create(ctx context.Context, objects ...client.Object) {
	GinkgoHelper()
	for _, object := range objects {
		Expect(api.Create(ctx, object)).To(Succeed(), "create %T %s", object, object.GetName())
	}
}

// ready waits until a pod is ready, and returns it.
func ready(ctx context.Context, namespace, name string) *corev1.Pod {
	GinkgoHelper()
	pod := &corev1.Pod{}
	Eventually(ctx, func(g Gomega) {
		g.Expect(api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, pod)).To(Succeed())
		g.Expect(isReady(pod)).To(BeTrue(), "the pod %s is not ready: %s", name, conditions(pod))
	}).WithTimeout(90 * time.Second).WithPolling(200 * time.Millisecond).Should(Succeed())
	return pod
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// conditions returns why a pod is not ready.
func conditions(pod *corev1.Pod) string {
	text := string(pod.Status.Phase)
	for _, c := range pod.Status.Conditions {
		if c.Status != corev1.ConditionTrue {
			text += fmt.Sprintf("; %s: %s", c.Type, c.Message)
		}
	}
	return text
}

// podOf returns the one pod with a name's label, once it is ready and no other is left.
func podOf(ctx context.Context, namespace, name string) *corev1.Pod {
	GinkgoHelper()
	pods := &corev1.PodList{}
	Eventually(ctx, func(g Gomega) {
		g.Expect(api.List(ctx, pods, client.InNamespace(namespace), client.MatchingLabels{"e2e": name})).To(Succeed())
		g.Expect(pods.Items).To(HaveLen(1))
		g.Expect(isReady(&pods.Items[0])).To(BeTrue(), conditions(&pods.Items[0]))
	}).WithTimeout(90 * time.Second).WithPolling(200 * time.Millisecond).Should(Succeed())
	return &pods.Items[0]
}

// useInitImage changes the init image in the configuration, and waits until both replicas use it.
func useInitImage(ctx context.Context, old, now string) {
	GinkgoHelper()
	configMap := &corev1.ConfigMap{}
	Expect(api.Get(ctx, client.ObjectKey{Namespace: system, Name: "shunt-injector"}, configMap)).To(Succeed())
	changed := strings.Replace(configMap.Data["config.yaml"], "initImage: "+old, "initImage: "+now, 1)
	Expect(changed).NotTo(Equal(configMap.Data["config.yaml"]))
	configMap.Data["config.yaml"] = changed
	Expect(api.Update(ctx, configMap)).To(Succeed())
	Eventually(ctx, func(g Gomega) {
		// kubelet writes the file of a pod that changes at once, and of any other after up to a minute.
		kubectl(ctx, "-n", system, "annotate", "pods", "--all", "--overwrite", fmt.Sprint("e2e=", time.Now().UnixNano()))
		for range 6 { // each replica has read it, as far as can be told
			pod := newPod("default", "tried")
			pod.Labels["sidecar.istio.io/inject"] = "true"
			g.Expect(api.Create(ctx, pod, client.DryRunAll)).To(Succeed())
			g.Expect(pod.Spec.InitContainers[0].Image).To(Equal(now))
		}
	}).WithTimeout(2 * time.Minute).WithPolling(2 * time.Second).Should(Succeed())
}

// injected reports whether a pod has the proxy, completely.
func injected(pod *corev1.Pod) bool {
	names := []string{}
	for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		names = append(names, container.Name)
	}
	return pod.Annotations[statusKey] != "" && slices.Contains(names, "shunt-init") && slices.Contains(names, "shunt-proxy")
}

// url returns the URL of an application on port 8080, or of a Service.
func url(address string, port string) string {
	return "http://" + net.JoinHostPort(address, port) + "/"
}

// bundles returns the CA bundles of the installed webhooks.
func bundles(ctx context.Context) ([]string, error) {
	configuration := &admissionv1.MutatingWebhookConfiguration{}
	if err := api.Get(ctx, client.ObjectKey{Name: "shunt"}, configuration); err != nil {
		return nil, err
	}
	all := []string{}
	for _, webhook := range configuration.Webhooks {
		all = append(all, string(webhook.ClientConfig.CABundle))
	}
	return all, nil
}
