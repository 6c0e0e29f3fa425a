package webhook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
)

// reloading is a reloader of a file that holds the name of an image, with what can be observed of
// it.
type reloading struct {
	*reloader
	dir   string
	notes chan string
	lines chan string
}

var errImage = errors.New("proxyImage: accepted: an image")

// imageOf returns the configuration of such a text, or of the file beside it that file: names.
func imageOf(text []byte, beside config.ReadFile) (config.Config, error) {
	cfg := config.Default()
	cfg.ProxyImage = strings.TrimSpace(string(text))
	if name, is := strings.CutPrefix(cfg.ProxyImage, "file:"); is {
		text, err := beside(name)
		if err != nil {
			return config.Config{}, err
		}
		cfg.ProxyImage = string(text)
	}
	if cfg.ProxyImage == "" || cfg.ProxyImage == "bad" {
		return config.Config{}, errImage
	}
	return cfg, nil
}

func newReloading(t *testing.T, poll time.Duration) reloading {
	t.Helper()
	r := reloading{dir: t.TempDir(), notes: make(chan string, 100), lines: make(chan string, 100)}
	handler := NewHandler(config.Default(), StaticNamespaces{}, NewMetrics())
	handler.RecordEvents(r)
	r.reloader = newReloader(Options{
		Config: ConfigFile{Path: filepath.Join(r.dir, "config.yaml"), Parse: imageOf},
		Log:    funcr.NewJSON(func(line string) { r.lines <- line }, funcr.Options{}),
		Self:   &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: "shunt-system", Name: "webhook-1", UID: "uid-1"},
	}, handler)
	r.poll = poll
	return r
}

// Eventf records the note of an Event.
func (r reloading) Eventf(regarding, _ runtime.Object, eventtype, reason, action, note string, args ...any) {
	about := regarding.(*corev1.ObjectReference).Name
	r.notes <- fmt.Sprintf("%s %s %s %s: ", about, eventtype, reason, action) + fmt.Sprintf(note, args...)
}

// run starts the reloader until the test ends.
func (r reloading) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the reloader ended with %v", err)
		}
	})
}

// image returns the image that pods get now.
func (r reloading) image() string {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{annotation.InjectKey: "true"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	injected := r.handler.current.injector.Load().Inject(pod, annotation.Namespace{}).Pod
	for _, c := range injected.Spec.InitContainers {
		if c.Name == "shunt-proxy" {
			return c.Image
		}
	}
	return ""
}

// value returns the value of a metric's only series, or of the one with this result.
func (r reloading) value(t *testing.T, name, result string) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(r.metrics)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && (result == "" || m.GetLabel()[0].GetValue() == result) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return -1
}

// wait polls until the counts of good and bad readings are these.
func (r reloading) wait(t *testing.T, ok, failed float64) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	const name = "shunt_webhook_config_reloads_total"
	for r.value(t, name, "ok") != ok || r.value(t, name, "failed") != failed {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute %v good and %v bad readings, want %v and %v",
				r.value(t, name, "ok"), r.value(t, name, "failed"), ok, failed)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// mount changes the file as kubelet changes that of a ConfigMap: a folder for each version, and a
// symlink that is replaced.
func mount(t *testing.T, dir, version, text string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, version, "config.yaml"), text)
	if err := os.Symlink(version, filepath.Join(dir, "..data_tmp")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "config.yaml")
	if err := os.Symlink(filepath.Join("..data", "config.yaml"), file); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
}

// check compares the current configuration, metrics, log and Events.
func (r reloading) check(t *testing.T, image string, good bool, goodAt float64) {
	t.Helper()
	if got := r.image(); got != image {
		t.Errorf("pods get the image %q, want %q", got, image)
	}
	successful := map[bool]float64{true: 1, false: 0}[good]
	if got := r.value(t, "shunt_webhook_config_last_reload_successful", ""); got != successful {
		t.Errorf("last reload successful: %v, want %v", got, successful)
	}
	if got := r.value(t, "shunt_webhook_config_last_reload_success_timestamp_seconds", ""); (got == goodAt) == good {
		t.Errorf("time of the last good reload is %v, was %v; good: %v", got, goodAt, good)
	}
	line := <-r.lines
	if bad := strings.Contains(line, errImage.Error()) || strings.Contains(line, "no such file"); bad == good {
		t.Errorf("log line of a configuration that is good (%v): %s", good, line)
	}
	if good {
		return
	}
	if note := <-r.notes; !strings.HasPrefix(note, "webhook-1 Warning BadConfiguration ReloadConfiguration: "+r.file.Path+" is bad") {
		t.Errorf("Event %q", note)
	}
}

// TestReload checks that a changed ConfigMap is in force within a moment. A bad one leaves the last
// good one in force, with a metric, a log line and an Event; each once, however often it is read.
func TestReload(t *testing.T) {
	const goodAt = "shunt_webhook_config_last_reload_success_timestamp_seconds"
	r := newReloading(t, time.Hour) // so that only the folder notifies
	mount(t, r.dir, "..1", "first")
	if got := r.value(t, goodAt, ""); got != -1 {
		t.Errorf("nothing was read, and the last good reading was at %v", got)
	}
	r.run(t)
	r.wait(t, 1, 0)
	r.check(t, "first", true, -1)

	at := r.value(t, goodAt, "")
	mount(t, r.dir, "..2", "bad")
	r.wait(t, 1, 1)
	r.check(t, "first", false, at)

	mount(t, r.dir, "..3", "third")
	r.wait(t, 2, 1)
	r.check(t, "third", true, at)

	at = r.value(t, goodAt, "")
	if err := os.Remove(filepath.Join(r.dir, "config.yaml")); err != nil {
		t.Fatal(err)
	}
	r.wait(t, 2, 2)
	r.check(t, "third", false, at)

	mount(t, r.dir, "..4", "fourth")
	r.wait(t, 3, 2)
	r.check(t, "fourth", true, at)

	write(t, filepath.Join(r.dir, "another"), "bad") // another file in the folder, and the same text, are no change
	mount(t, r.dir, "..5", "fourth")
	mount(t, r.dir, "..6", "sixth")
	r.wait(t, 4, 2)
	r.check(t, "sixth", true, at)
}

// TestReloadOfAFileBeside checks that a change of a file that the configuration names is a change of
// the configuration.
func TestReloadOfAFileBeside(t *testing.T) {
	const goodAt = "shunt_webhook_config_last_reload_success_timestamp_seconds"
	r := newReloading(t, time.Hour)
	beside := filepath.Join(r.dir, "image.txt")
	write(t, beside, "first")
	write(t, r.file.Path, "file:image.txt")
	r.run(t)
	r.wait(t, 1, 0)
	r.check(t, "first", true, -1)

	at := r.value(t, goodAt, "")
	if err := os.Remove(beside); err != nil {
		t.Fatal(err)
	}
	r.wait(t, 1, 1)
	r.check(t, "first", false, at)

	write(t, beside+".new", "second")
	if err := os.Rename(beside+".new", beside); err != nil { // in one step: a file that is being written is empty first
		t.Fatal(err)
	}
	r.wait(t, 2, 1)
	r.check(t, "second", true, at)
}

// TestReloadOfAFolderThatIsReplaced checks that no change is lost when the folder is replaced.
func TestReloadOfAFolderThatIsReplaced(t *testing.T) {
	r := newReloading(t, 20*time.Millisecond)
	write(t, r.file.Path, "first")
	r.run(t)
	r.wait(t, 1, 0)
	if err := os.RemoveAll(r.dir); err != nil {
		t.Fatal(err)
	}
	r.wait(t, 1, 1)
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, r.file.Path, "second")
	r.wait(t, 2, 1)
	if got := r.image(); got != "second" {
		t.Errorf("pods get the image %q, want the second", got)
	}
}

// TestReloadWithoutSigns checks that a file is read every ten seconds if nothing notifies of
// changes.
func TestReloadWithoutSigns(t *testing.T) {
	r := newReloading(t, pollInterval)
	write(t, r.file.Path, "first")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r.log, r.handler.events, r.events = logr.Discard(), nil, nil // they live outside the bubble
		done := make(chan error)
		go func() { done <- r.follow(ctx, nil, func() {}) }()
		synctest.Wait()
		if got := r.image(); got != "first" {
			t.Errorf("pods get the image %q at the start, want the first", got)
		}
		write(t, r.file.Path, "second")
		time.Sleep(pollInterval)
		synctest.Wait()
		if got := r.image(); got != "second" {
			t.Errorf("pods get the image %q after %v, want the second", got, pollInterval)
		}
		write(t, r.file.Path, "bad")
		time.Sleep(10 * pollInterval)
		synctest.Wait()
		if got := r.value(t, "shunt_webhook_config_reloads_total", "failed"); got != 1 {
			t.Errorf("a bad file that was read ten times is counted %v times, want once", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestReloadMetricsWithoutAFile checks that a webhook without a file has no metrics about one.
func TestReloadMetricsWithoutAFile(t *testing.T) {
	r := newReloading(t, time.Hour)
	for _, name := range []string{
		"shunt_webhook_config_last_reload_successful", "shunt_webhook_config_last_reload_success_timestamp_seconds",
		"shunt_webhook_certificate_expiry_timestamp_seconds",
	} {
		if got := r.value(t, name, ""); got != -1 {
			t.Errorf("%s is %v before anything was read", name, got)
		}
	}
	r.wait(t, 0, 0)
}
