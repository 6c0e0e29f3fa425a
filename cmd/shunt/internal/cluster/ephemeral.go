package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/shunt-dev/shunt/inject/podplan"
)

// Asked is a pod to look into.
type Asked struct {
	Namespace, Kind, Name string
	// Image runs shunt-init; "" for that of the pod's own init container.
	Image string
	// Live is where the container makes one tcp connection to; the zero value for
	// none.
	Live netip.AddrPort
}

// readerRole is what whoever looks into pods has to be allowed.
const readerRole = `
  - apiGroups: [""]
    resources: [pods]
    verbs: [get, list]
  - apiGroups: [""]
    resources: [pods/ephemeralcontainers]
    verbs: [patch]
  - apiGroups: [""]
    resources: [pods/log]
    verbs: [get]`

// readerPatience is how long the reader may take, its image to be pulled included.
const readerPatience = 2 * time.Minute

// Dump adds an ephemeral container to a running pod that prints what decides which
// way packets go there, and returns that. It says first what it adds.
func Dump(ctx context.Context, api *rest.Config, asked Asked, say func(string)) (*corev1.Pod, string, error) {
	c, err := connect(api)
	if err != nil {
		return nil, "", fmt.Errorf("connect to the API server: %w", err)
	}
	pod, err := c.pod(ctx, asked.Namespace, asked.Kind, asked.Name)
	if err != nil {
		return nil, "", allow(err, asked.Namespace)
	}
	if pod.Status.Phase != corev1.PodRunning {
		return nil, "", NotFoundError{fmt.Errorf("pod %s of namespace %s is %s; accepted: a running pod", pod.Name, pod.Namespace,
			strings.ToLower(string(pod.Status.Phase)))}
	}
	reader, err := readerFor(pod, asked.Image)
	if err != nil {
		return nil, "", err
	}
	doing := "reads"
	if asked.Live.IsValid() {
		reader.Args = append(reader.Args, "--connect", asked.Live.String())
		doing = fmt.Sprintf("reads, makes one tcp connection to %s", asked.Live)
	}
	say(fmt.Sprintf("adding the ephemeral container %s to pod %s of namespace %s: image %s, root, %s. It %s, ends, and stays in the "+
		"pod's list of containers until the pod goes: Kubernetes cannot remove one.", reader.Name, pod.Name, pod.Namespace, reader.Image,
		capabilities(reader), doing))
	if err := c.addEphemeral(ctx, pod, reader); err != nil {
		return nil, "", allow(err, asked.Namespace)
	}
	ctx, cancel := context.WithTimeout(ctx, readerPatience)
	defer cancel()
	code, err := c.ended(ctx, pod, reader.Name)
	if err != nil {
		return nil, "", err
	}
	text, err := logOf(ctx, api, pod, reader.Name, 0)
	if err != nil {
		return nil, "", allow(err, asked.Namespace)
	}
	if code != 0 {
		return nil, "", fmt.Errorf("the reader %s ended with exit code %d: %s; an image older than this command has no shunt-init dump: "+
			"--reader-image names another", reader.Name, code, strings.TrimSpace(text[:min(len(text), 500)]))
	}
	return pod, text, nil
}

// readerFor returns the container that reads, with no more than reading needs:
// NET_ADMIN, as root for it to take effect, and NET_RAW if the pod's rules are
// iptables-legacy's.
func readerFor(pod *corev1.Pod, image string) (corev1.EphemeralContainer, error) {
	needs := []corev1.Capability{"NET_ADMIN"}
	i := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == podplan.InitContainerName })
	var policy corev1.PullPolicy
	if i >= 0 {
		own := pod.Spec.InitContainers[i]
		if image == "" {
			image, policy = own.Image, own.ImagePullPolicy
		}
		if s := own.SecurityContext; s != nil && s.Capabilities != nil && slices.Contains(s.Capabilities.Add, "NET_RAW") {
			needs = append(needs, "NET_RAW")
		}
	}
	if image == "" {
		return corev1.EphemeralContainer{}, fmt.Errorf("--reader-image: Required value for pod %s, which has no init container %s; "+
			"accepted: an image of shunt-init", pod.Name, podplan.InitContainerName)
	}
	return corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: "shunt-trace-" + rand.String(5), Image: image, ImagePullPolicy: policy, Args: []string{"dump"},
		SecurityContext: &corev1.SecurityContext{
			RunAsUser: ptr.To[int64](0), RunAsGroup: ptr.To[int64](0), RunAsNonRoot: ptr.To(false),
			AllowPrivilegeEscalation: ptr.To(false), ReadOnlyRootFilesystem: ptr.To(true),
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: needs},
		},
		TerminationMessagePolicy: corev1.TerminationMessageReadFile,
	}}, nil
}

func capabilities(reader corev1.EphemeralContainer) string {
	var names []string
	for _, name := range reader.SecurityContext.Capabilities.Add {
		names = append(names, string(name))
	}
	return "capabilities " + strings.Join(names, " and ")
}

// addEphemeral patches the subresource for them, which is a right of its own.
func (c cluster) addEphemeral(ctx context.Context, pod *corev1.Pod, reader corev1.EphemeralContainer) error {
	writer, is := c.Reader.(client.Client)
	if !is {
		return errors.New("this client only reads")
	}
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"ephemeralContainers": []any{reader}}})
	if err != nil {
		return fmt.Errorf("writing the patch: %w", err)
	}
	return writer.SubResource("ephemeralcontainers").Patch(ctx, pod.DeepCopy(), client.RawPatch(types.StrategicMergePatchType, patch))
}

// ended waits until a container of a pod has ended, and returns its exit code.
func (c cluster) ended(ctx context.Context, of *corev1.Pod, name string) (int32, error) {
	why := "it has not started"
	for {
		pod := &corev1.Pod{}
		if err := c.Get(ctx, client.ObjectKeyFromObject(of), pod); err != nil && ctx.Err() == nil {
			return 0, err
		}
		for _, status := range pod.Status.EphemeralContainerStatuses {
			switch {
			case status.Name != name:
			case status.State.Terminated != nil:
				return status.State.Terminated.ExitCode, nil
			case status.State.Waiting != nil:
				why = strings.TrimSpace(status.State.Waiting.Reason + " " + status.State.Waiting.Message)
			default:
				why = "it is running"
			}
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("the reader %s has not ended within %s: %s", name, readerPatience, why)
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// longestLog bounds what is read of a container.
const longestLog = 64 << 20

// ProxyLog returns the lines of the proxy's log of the last seconds that contain a
// word. The proxy writes a connection's line when it has ended, so ProxyLog waits for
// one.
func ProxyLog(ctx context.Context, api *rest.Config, pod *corev1.Pod, word string) ([]string, error) {
	const patience, seconds = 5 * time.Second, 60
	for deadline := time.Now().Add(patience); ; {
		text, err := logOf(ctx, api, pod, podplan.ProxyContainerName, seconds)
		if err != nil {
			return nil, err
		}
		var lines []string
		for line := range strings.Lines(text) {
			if strings.Contains(line, word) {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
		if len(lines) > 0 || time.Now().After(deadline) {
			return lines, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// logOf returns what a container has printed, in the last seconds if there are any.
func logOf(ctx context.Context, api *rest.Config, pod *corev1.Pod, container string, seconds int) (string, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return "", err
	}
	core := rest.CopyConfig(api)
	core.APIPath, core.GroupVersion = "/api", &corev1.SchemeGroupVersion
	core.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	asking, err := rest.RESTClientFor(core)
	if err != nil {
		return "", fmt.Errorf("connect to the API server: %w", err)
	}
	request := asking.Get().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).SubResource("log").Param("container", container)
	if seconds > 0 {
		request.Param("sinceSeconds", strconv.Itoa(seconds))
	}
	stream, err := request.Stream(ctx)
	if err != nil {
		return "", err
	}
	defer stream.Close()
	text, err := io.ReadAll(io.LimitReader(stream, longestLog))
	if err != nil {
		return "", fmt.Errorf("read the log of %s: %w", container, err)
	}
	return string(text), nil
}

// allow says what to ask an administrator for, if something is forbidden.
func allow(err error, namespace string) error {
	if !apierrors.IsForbidden(err) {
		return err
	}
	if strings.Contains(err.Error(), "violates PodSecurity") {
		return fmt.Errorf("%w\nNamespace %s allows no container that can read rules: reading takes NET_ADMIN, as Shunt's own init "+
			"container does. Ask an administrator for the label pod-security.kubernetes.io/enforce: privileged on it, or to run "+
			"shunt trace --pid on the node, or for what shunt-init dump prints there (--dump)", err, namespace)
	}
	return fmt.Errorf("%w\nAsk an administrator for a Role in namespace %s with these rules:%s", err, namespace, readerRole)
}
