package e2e_test

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// counts holds what became of the pods of a stream.
type counts struct {
	tried, injected, denied, wrong int
	reasons                        map[string]int
	longest                        time.Duration // without a created pod
}

func (c counts) String() string {
	text := fmt.Sprintf("%d creations tried, %d injected, %d denied, %d admitted wrongly; the longest time without one: %s",
		c.tried, c.injected, c.denied, c.wrong, c.longest.Round(100*time.Millisecond))
	for reason, times := range c.reasons {
		text += fmt.Sprintf("\n  %d times: %s", times, reason)
	}
	return text
}

// stream creates pods in a namespace, one after the other, and looks at each. No node runs them:
// only admission is tested.
type stream struct {
	namespace string

	mu     sync.Mutex
	counts counts
	cancel context.CancelFunc
	ended  chan struct{}
}

// newStream starts a stream. It ends with the spec at the latest.
func newStream(ctx context.Context, namespace string, wanted bool) *stream {
	lifetime, cancel := context.WithCancel(ctx)
	s := &stream{namespace: namespace, cancel: cancel, ended: make(chan struct{}), counts: counts{reasons: map[string]int{}}}
	go func() {
		defer close(s.ended)
		last := time.Now()
		for number := 0; lifetime.Err() == nil; number++ {
			pod := unscheduled(namespace, fmt.Sprintf("pod-%d", number))
			err := api.Create(lifetime, pod)
			if lifetime.Err() != nil {
				return
			}
			s.count(pod, err, wanted, &last)
			time.Sleep(20 * time.Millisecond) // the pace, not a wait
		}
	}()
	DeferCleanup(s.stop)
	return s
}

// nobody is the name of a scheduler that does not exist.
const nobody = "none"

// unscheduled returns a pod that no node runs.
func unscheduled(namespace, name string) *corev1.Pod {
	pod := newPod(namespace, name)
	pod.Spec.SchedulerName = nobody
	return pod
}

func (s *stream) count(pod *corev1.Pod, err error, wanted bool, last *time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.tried++
	switch {
	case err != nil:
		s.counts.denied++
		s.counts.reasons[err.Error()]++
		return
	case injected(pod) != wanted:
		s.counts.wrong++
	case wanted:
		s.counts.injected++
	}
	s.counts.longest = max(s.counts.longest, time.Since(*last))
	*last = time.Now()
}

func (s *stream) stop() {
	s.cancel()
	<-s.ended
}

// kept checks, after the end of a stream, that the API server's pods are as it answered. If the API
// server is killed, an answer may be lost and the pod exist all the same.
func (s *stream) kept(ctx context.Context, wanted bool) {
	GinkgoHelper()
	pods := &corev1.PodList{}
	Expect(api.List(ctx, pods, client.InNamespace(s.namespace))).To(Succeed())
	wrong := []string{}
	for i := range pods.Items {
		if pod := &pods.Items[i]; pod.Spec.SchedulerName == nobody && injected(pod) != wanted {
			wrong = append(wrong, pod.Name)
		}
	}
	Expect(wrong).To(BeEmpty(), "of %d pods, injected is not %t for these", len(pods.Items), wanted)
}

// soFar returns the counts so far.
func (s *stream) soFar() counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	so := s.counts
	so.reasons = maps.Clone(so.reasons)
	return so
}

// goesOn waits until more pods are created.
func (s *stream) goesOn(ctx context.Context, limit time.Duration) {
	GinkgoHelper()
	made := func() int { c := s.soFar(); return c.tried - c.denied }
	before := made()
	Eventually(ctx, made).WithTimeout(limit).WithPolling(100*time.Millisecond).
		Should(BeNumerically(">", before+10), "no more pods are made")
}
