package check

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
)

// Shunt is one installation in a cluster, and the settings that it has now.
type Shunt struct {
	in installation
	// Config is adapted to the API server. If it is not Known, it has the revision
	// and else the defaults, and Problem is why.
	Config  config.Config
	Known   bool
	Problem string
	// Source is where Config is from, in words.
	Source string
	// Version is the webhook's; empty if no replica was asked.
	Version string
	// Origins are where each field of Config that is set comes from, by its path.
	Origins map[string]string
}

// Shunts returns the installations of a cluster.
func (s Snapshot) Shunts() []Shunt {
	var all []Shunt
	for _, in := range s.installations() {
		all = append(all, s.shunt(in))
	}
	return all
}

func (s Snapshot) shunt(in installation) Shunt {
	cfg, err := s.settings(in)
	origins := map[string]string{}
	for _, field := range cfg.fields {
		origins[field] = cfg.object
	}
	if cfg.byFlag {
		origins["revision"] = "flag --revision of the webhook"
	}
	of := Shunt{in: in, Known: cfg.known, Source: cfg.object + ": " + cfg.text, Origins: origins}
	if len(cfg.inForce.replicas) > 0 {
		of.Source = cfg.object + ": " + inForceIn(len(cfg.inForce.replicas))
		of.Version = cfg.inForce.replicas[0].InForce.Version
		for _, differs := range config.Differences(cfg.ForAPIServer(s.NativeSidecars), cfg.inForce.Config) {
			origins[differs.Field] = "configuration in force"
		}
		if err != nil { // nothing is known of the file, which is not in force
			origins = map[string]string{}
			for _, differs := range config.Differences(config.Default().ForAPIServer(s.NativeSidecars), cfg.inForce.Config) {
				origins[differs.Field] = "configuration in force"
			}
			of.Source, of.Origins = in.object()+": the last good configuration, "+inForceIn(len(cfg.inForce.replicas)), origins
		}
		of.Config = cfg.inForce.Config
		return of
	}
	if err != nil {
		of.Known, of.Problem, cfg.Config = false, err.Error(), in.unknownSettings().Config
		of.Source = cfg.object + " is not valid"
	}
	of.Config = cfg.ForAPIServer(s.NativeSidecars)
	return of
}

// Object returns the webhook configuration, as Findings have it.
func (s Shunt) Object() string { return s.in.object() }

// Registered returns when the API server learned of the webhooks.
func (s Shunt) Registered() time.Time { return s.in.configuration.CreationTimestamp.Time }

// Selects reports whether API servers ask the webhooks about a pod.
func (s Shunt) Selects(pod *corev1.Pod, ns annotation.Namespace) bool { return s.in.selects(pod, ns) }
