package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/strict"
)

// Replica is a pod of a webhook, and the configuration that it uses.
type Replica struct {
	Namespace, Service, Pod string
	InForce                 config.InForce
	// Problem is why it could not be asked.
	Problem string
}

// Asking is where replicas of one webhook serve the configuration that they use.
type Asking struct {
	Namespace, Service string
	Pods               []string // ready ones, mostAsked at most
	Port               int32    // of the pods' loopback
}

// mostAsked is how many replicas are asked for their configuration.
const mostAsked = 5

// Askings returns those of all of Shunt's webhooks, each once. Webhooks that are
// told to serve no configuration have none.
func (s Snapshot) Askings() []Asking {
	var all []Asking
	for _, in := range s.installations() {
		port, err := in.debugPort()
		if err != nil {
			continue
		}
		ask := Asking{Namespace: in.service.Namespace, Service: in.service.Name, Port: port}
		for _, pod := range s.HomePods {
			if in.serves(pod) && len(ask.Pods) < mostAsked {
				ask.Pods = append(ask.Pods, pod.Name)
			}
		}
		same := func(other Asking) bool { return other.Namespace == ask.Namespace && other.Service == ask.Service }
		if !slices.ContainsFunc(all, same) {
			all = append(all, ask)
		}
	}
	return all
}

// debugPort returns the port at which the Deployment's pods serve the configuration
// that they use, or why they do not.
func (in installation) debugPort() (int32, error) {
	if in.deployment == nil {
		return 0, errors.New("it has no Deployment")
	}
	flags, _ := in.flags()
	if flags == nil {
		return 0, errors.New("its Deployment has no container")
	}
	address, _ := flags.GetString(debugAddress)
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		return 0, fmt.Errorf("the webhook's --%s is %s", debugAddress, address)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("the webhook's --%s is %s", debugAddress, address)
	}
	return int32(port), nil
}

// inForce is the configuration that the replicas of a webhook use.
type inForce struct {
	config.Config          // of the first replica
	replicas      []answer // the newest configuration first
	unasked       string   // why there is none
}

// answer is a replica that answered, and its configuration as the injector uses it.
type answer struct {
	Replica
	config.Config
}

// inForce reads the answers of an installation's replicas. Fields that this version
// does not know are left out.
func (s Snapshot) inForce(in installation) inForce {
	if _, err := in.debugPort(); err != nil {
		return inForce{unasked: err.Error()}
	}
	found := inForce{unasked: "no replica is ready"}
	for _, replica := range s.Replicas {
		if replica.Namespace != in.service.Namespace || replica.Service != in.service.Name {
			continue
		}
		var cfg config.Config
		if replica.Problem == "" {
			var err error
			if cfg, err = decoded(replica); err != nil {
				replica.Problem = err.Error()
			}
		}
		if replica.Problem != "" {
			found.unasked = "asking pod " + replica.Pod + ": " + strict.Cut(replica.Problem, strict.MaxDetail)
			continue
		}
		found.replicas = append(found.replicas, answer{replica, cfg})
	}
	slices.SortStableFunc(found.replicas, func(a, b answer) int { return b.InForce.Since.Compare(a.InForce.Since.Time) })
	if len(found.replicas) > 0 {
		found.Config = found.replicas[0].Config
	}
	return found
}

// decoded returns a replica's configuration as the injector uses it.
func decoded(replica Replica) (config.Config, error) {
	if !json.Valid(replica.InForce.Configuration) {
		return config.Config{}, errors.New("the answer has no configuration")
	}
	cfg, _, err := config.Decode(replica.InForce.Configuration)
	if err != nil {
		return config.Config{}, fmt.Errorf("read its configuration: %w", err)
	}
	if err := cfg.Validate().ToAggregate(); err != nil {
		return config.Config{}, fmt.Errorf("check its configuration: %w", err)
	}
	return cfg.ForAPIServer(replica.InForce.NativeSidecars), nil
}

// disagreements reports where replicas use another configuration, or are of another
// version, than the one that read its configuration last.
func (r *report) disagreements(found inForce) (agreed bool) {
	agreed = true
	for _, replica := range found.replicas[1:] {
		first := found.replicas[0]
		var differs []string
		if was, now := replica.InForce.Version, first.InForce.Version; was != now {
			differs = append(differs, fmt.Sprintf("version: %s -> %s", was, now))
		}
		differs = append(differs, lines(config.Differences(replica.Config, found.Config))...)
		if len(differs) == 0 {
			continue
		}
		agreed = false
		r.add(Warn, Configuration, "Pod/"+replica.Namespace+"/"+replica.Pod,
			"it is not like Pod %s, with which pods are compared: %s", first.Pod, strings.Join(differs, "; "))
	}
	return agreed
}

// lines returns a line for each difference, and a number instead of too many.
func lines(differences []config.Difference) []string {
	var all []string
	for i, d := range differences {
		if i == strict.MostTold {
			return append(all, strict.AndMore(len(differences)-i))
		}
		all = append(all, strict.Shorten(d.String()))
	}
	return all
}
