package cluster

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shunt-dev/shunt/inject/podplan"
)

// TestReaderHasWhatReadingNeeds checks the capabilities and the image of the container that reads.
func TestReaderHasWhatReadingNeeds(t *testing.T) {
	pod := func(more ...corev1.Capability) *corev1.Pod {
		added := append([]corev1.Capability{"NET_ADMIN"}, more...)
		own := corev1.Container{
			Name: podplan.InitContainerName, Image: "shunt-init:1", ImagePullPolicy: corev1.PullNever,
			SecurityContext: &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: added}},
		}
		return &corev1.Pod{Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "first", Image: "x"}, own}}}
	}
	for _, c := range []struct {
		pod                *corev1.Pod
		given, image, caps string
		policy             corev1.PullPolicy
	}{
		{pod(), "", "shunt-init:1", "capabilities NET_ADMIN", corev1.PullNever},
		{pod("NET_RAW"), "", "shunt-init:1", "capabilities NET_ADMIN and NET_RAW", corev1.PullNever},
		{pod(), "other:2", "other:2", "capabilities NET_ADMIN", ""},
		{&corev1.Pod{}, "other:2", "other:2", "capabilities NET_ADMIN", ""},
	} {
		reader, err := readerFor(c.pod, c.given)
		if err != nil || reader.Image != c.image || capabilities(reader) != c.caps || reader.ImagePullPolicy != c.policy {
			t.Errorf("%+v: %v, %v", c, reader, err)
		}
		if s := reader.SecurityContext; *s.RunAsUser != 0 || *s.AllowPrivilegeEscalation || s.Capabilities.Drop[0] != "ALL" {
			t.Errorf("%+v", s)
		}
	}
	if _, err := readerFor(&corev1.Pod{}, ""); err == nil || !strings.Contains(err.Error(), "--reader-image: Required value") {
		t.Errorf("a pod without Shunt: %v", err)
	}
}

// TestWhatToAskFor checks what is said of things that are forbidden, and of nothing else.
func TestWhatToAskFor(t *testing.T) {
	forbidden := func(why string) error {
		return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "first", errors.New(why))
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{
			forbidden("User \"x\" cannot patch resource \"pods/ephemeralcontainers\""),
			"resources: [pods/ephemeralcontainers]\n    verbs: [patch]",
		},
		{forbidden("violates PodSecurity \"baseline:latest\""), "pod-security.kubernetes.io/enforce: privileged"},
		{errors.New("no route to host"), "no route to host"},
	} {
		if got := allow(c.err, "shop").Error(); !strings.Contains(got, c.want) {
			t.Errorf("%v: %s; want %s", c.err, got, c.want)
		}
	}
	if got := allow(errors.New("no route to host"), "shop").Error(); got != "no route to host" {
		t.Error(got)
	}
}
