package interception

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
)

// GateCommand is the first argument that makes shunt-init install no rules, but
// check that the node's agent has: the arguments behind it are the usual ones.
const GateCommand = "gate"

// NodeRules is what the node's agent does in a pod's network namespace: the part of
// shunt-init's arguments that concerns the namespace, and no file of the pod.
type NodeRules struct {
	Spec Spec
	IPv6 IPv6
}

// Options returns the options for the kernel. The agent's image holds no iptables,
// so it writes nf_tables itself.
func (r NodeRules) Options() Options { return Options{Backend: BackendNFTables, IPv6: r.IPv6} }

// String returns the text that the injector leaves for the agent in an annotation:
// the arguments, as a list in JSON.
func (r NodeRules) String() string {
	text, err := json.Marshal(Args(r.Spec, r.Options()))
	if err != nil {
		panic("a list of strings always marshals: " + err.Error())
	}
	return string(text)
}

// Digest identifies the rules. The gate knows by it that the agent was given the
// same arguments as itself: an annotation can be changed after the pod was created,
// a container's arguments cannot.
func (r NodeRules) Digest() string {
	sum := sha256.Sum256([]byte(r.String()))
	return hex.EncodeToString(sum[:])
}

const (
	// MaxNodeRules is the length from which on no annotation is read. Kubernetes
	// takes 256 KiB of annotations in all.
	MaxNodeRules = 256 << 10
	// maxNodeNames is the longest list of which each element becomes a rule. Ports
	// and ranges do not: they are elements of sets. 20,000 user ids took the agent 5 s
	// and more memory than it has, and the container runtime drops an agent after 2 s.
	maxNodeNames = 256
)

// ParseNodeRules reads what String returns. Anybody who makes a pod may have written
// it. So only arguments for the rules are accepted: none that names a file, another
// network namespace or another thing to do.
func ParseNodeRules(text string) (NodeRules, error) {
	if len(text) > MaxNodeRules {
		return NodeRules{}, fmt.Errorf("%d bytes; accepted: up to %d", len(text), MaxNodeRules)
	}
	var args []string
	if err := json.Unmarshal([]byte(text), &args); err != nil {
		return NodeRules{}, fmt.Errorf("no list of arguments in JSON: %w", err)
	}
	spec, opts, err := ParseArgs(args)
	if err != nil {
		return NodeRules{}, err
	}
	rules := NodeRules{Spec: spec, IPv6: opts.IPv6}
	if opts != rules.Options() {
		return NodeRules{}, fmt.Errorf("%s: the agent takes no other options than --backend=%s and --ipv6",
			strings.Join(args, " "), BackendNFTables)
	}
	if spec.DNS.Redirect && !spec.DNS.All && spec.DNS.Servers == nil {
		return NodeRules{}, flagErrorf(flagRedirectDNS, "the pod's resolvers are not known here; accepted: with --%s or --%s",
			flagDNSServers, flagCaptureAll)
	}
	return rules, rules.checkLists()
}

func (r NodeRules) checkLists() error {
	for _, list := range []struct {
		flag   string
		length int
	}{
		{flagUIDs, len(r.Spec.ProxyUIDs)},
		{flagGIDs, len(r.Spec.ProxyGIDs)},
		{flagVirtual, len(r.Spec.VirtualInterfaces)},
		{flagExcludeInterfaces, len(r.Spec.ExcludeInterfaces)},
		{flagOwnerGroups, len(r.Spec.OwnerGroups.IDs)},
		{flagExcludeOwnerGroups, len(r.Spec.ExcludeOwnerGroups)},
		{flagDNSServers, len(r.Spec.DNS.Servers)},
	} {
		if list.length > maxNodeNames {
			return flagErrorf(list.flag, "%d elements; accepted by the node's agent: up to %d", list.length, maxNodeNames)
		}
	}
	return nil
}
