package config

import (
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// defaultPortRange is below the default range of clients, which begins at 32768, and
// below a cluster's NodePorts. One end is odd and the other even: otherwise the
// kernel writes a warning to its log for each pod.
const defaultPortRange = "10000-31999"

const acceptedPortRange = "a range of ports from 1024 on such as 10000-31999, or an empty value to leave the pod's range as it is"

// parsePortRange reads a range of more than one port; nil for an empty text.
func parsePortRange(text string) (*interception.PortRange, error) {
	ports, err := interception.ParsePortRanges(text)
	if err != nil || len(ports) > 1 || len(ports) == 1 && (ports[0].First < podplan.LeastPort || ports[0].First == ports[0].Last) {
		return nil, &interception.ValueError{Value: text, Accepted: acceptedPortRange}
	}
	if len(ports) == 0 {
		return nil, nil
	}
	return &ports[0], nil
}

func checkPortRange(path *field.Path, text string) field.ErrorList {
	if _, err := parsePortRange(text); err != nil {
		return field.ErrorList{field.Invalid(path, text, "accepted: "+acceptedPortRange)}
	}
	return nil
}

// TProxyPorts returns the parsed TProxyPortRange of a valid configuration; nil if it
// is empty.
func (c Config) TProxyPorts() *interception.PortRange {
	ports, err := parsePortRange(c.TProxyPortRange)
	if err != nil {
		panic("port range from a valid configuration: " + err.Error())
	}
	return ports
}

// HTTPPortRanges returns the parsed HTTPPorts of a valid configuration.
func (c Config) HTTPPortRanges() interception.PortRanges {
	ports, err := interception.ParsePortRanges(c.HTTPPorts)
	if err != nil {
		panic("ports from a valid configuration: " + err.Error())
	}
	return ports
}
