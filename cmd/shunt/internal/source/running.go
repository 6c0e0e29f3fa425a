package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/cluster"
	"github.com/shunt-dev/shunt/initimage/dump"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/trace"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// Connect returns the API server that kubectl would ask, and the namespace that it
// would ask about.
type Connect func() (*rest.Config, string, error)

// running is a pod of a cluster, as its network namespace is.
type running struct {
	flag, image string
	argument    string // KIND/NAME or NAME, as kubectl has it
	connect     Connect
}

// SetCluster makes pods of a cluster a source. The argument of a command names one,
// or --pod.
func (s *Source) SetCluster(connect Connect) { s.kinds = append(s.kinds, &running{connect: connect}) }

// SetPod takes the words of a command line that name a pod.
func (s *Source) SetPod(words []string) {
	for _, k := range s.kinds {
		if r, is := k.(*running); is {
			r.argument = strings.Join(words, "/")
		}
	}
}

func (r *running) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&r.flag, "pod", "", "running pod of a cluster, as `[NAMESPACE/]POD`: an ephemeral container reads what it really has")
	fs.StringVar(&r.image, "reader-image", "", "with a pod: `image` of shunt-init for the ephemeral container (default that of the pod's "+
		"init container)")
}

func (r *running) name() string { return "--pod" }

func (r *running) given() bool { return r.flag != "" || r.argument != "" }

func (r *running) check() error {
	switch {
	case !r.given() && r.image != "":
		return errors.New("--reader-image without a pod; accepted: with --pod")
	case r.flag != "" && r.argument != "":
		return fmt.Errorf("%q with --pod; accepted: one of them", r.argument)
	case r.argument != "":
		_, _, err := cluster.Named(r.argument)
		return err
	}
	if parts := strings.Split(r.flag, "/"); r.flag != "" && (len(parts) > 2 || slices.Contains(parts, "")) {
		return fmt.Errorf("--pod: invalid value %q; accepted: POD, NAMESPACE/POD", r.flag)
	}
	return nil
}

// asked returns the pod that the user names.
func (r *running) asked(namespace string) cluster.Asked {
	asked := cluster.Asked{Namespace: namespace, Name: r.flag, Image: r.image}
	if in, name, both := strings.Cut(r.flag, "/"); both {
		asked.Namespace, asked.Name = in, name
	}
	if r.argument != "" {
		asked.Kind, asked.Name, _ = cluster.Named(r.argument) // check has seen the error
	}
	return asked
}

func (r *running) read(ctx context.Context, streams Streams) ([]trace.Pod, error) {
	api, namespace, err := r.connect()
	if err != nil {
		return nil, &UnaskedError{fmt.Errorf("find the cluster: %w", err)}
	}
	asked := r.asked(namespace)
	asked.Live = streams.Live
	pod, text, err := cluster.Dump(ctx, api, asked, func(sentence string) { fmt.Fprintln(streams.Stderr, sentence) })
	var missing cluster.NotFoundError
	switch {
	case errors.As(err, &missing):
		return nil, missing
	case err != nil:
		return nil, &UnaskedError{err}
	}
	name := "pod " + pod.Namespace + "/" + pod.Name
	read, notes, err := readText(name, text, streams.Live.IsValid())
	if err != nil {
		return nil, err
	}
	printNotes(streams.Stderr, name, notes)
	if err := addDrift(&read, pod); err != nil {
		return nil, err
	}
	if read.Live != nil && read.Live.Failure == "" {
		lines, err := cluster.ProxyLog(ctx, api, pod, read.Live.From.String())
		if read.Live.Log = lines; err != nil {
			read.Live.LogUnread = err.Error()
		}
	}
	return []trace.Pod{read}, nil
}

// addDrift compares what the pod has with what its init container was asked for.
// Its proxy is the one that was asked for, too.
func addDrift(read *trace.Pod, pod *corev1.Pod) error {
	i := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == podplan.InitContainerName })
	if i < 0 {
		return nil
	}
	args := pod.Spec.InitContainers[i].Args
	if len(args) > 0 && args[0] == interception.ShareCommand {
		return nil // it intercepts nothing
	}
	spec, opts, err := interception.ParseArgs(args)
	if err != nil {
		return fmt.Errorf("pod %s, the arguments of %s: %w", pod.Name, podplan.InitContainerName, err)
	}
	read.Proxy = trace.ProxyOf(spec)
	read.Drift = dump.Drift(*read, spec, familiesOf(opts))
	return nil
}
