package ruleset

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// maxListed is how many values of a list Exceptions names.
const maxListed = 10

// Exceptions returns in one line which tcp connections of a pod its rules do not
// intercept. A list that a pod made long is cut.
func Exceptions(spec interception.Spec) string {
	var all []string
	add := func(what string, values []string) {
		if len(values) > 0 {
			all = append(all, what+" "+listed(values))
		}
	}
	inbound, excluded := spec.InboundPorts.Ranges, inboundExceptions(spec)
	switch {
	case spec.InboundPorts.All:
		add("inbound ports", texts(excluded))
	case len(inbound) == 0:
		all = append(all, "inbound")
	default:
		add("inbound ports but", texts(inbound))
		add("inbound ports", texts(slices.DeleteFunc(slices.Clone(excluded), func(r interception.PortRange) bool {
			return !slices.ContainsFunc(inbound, func(of interception.PortRange) bool { return r.First <= of.Last && of.First <= r.Last })
		})))
	}
	to, ports := texts(spec.OutboundCIDRs.Prefixes), texts(spec.OutboundPorts)
	switch {
	case spec.OutboundCIDRs.All:
	case len(to) > 0 && len(ports) > 0:
		all = append(all, "outbound but to "+listed(to)+", and to ports "+listed(ports))
	case len(to) > 0:
		add("outbound but to", to)
	case len(ports) > 0:
		add("outbound but to ports", ports)
	default:
		all = append(all, "outbound")
	}
	add("outbound to", texts(spec.OutboundExcludeCIDRs))
	add("outbound to ports", texts(spec.OutboundExcludePorts))
	add("interfaces", spec.ExcludeInterfaces)
	if !spec.OwnerGroups.All {
		add("outbound but of gids", numbers(spec.OwnerGroups.IDs))
	}
	add("outbound of gids", numbers(spec.ExcludeOwnerGroups))
	if spec.System == interception.SystemAmbient {
		return strings.Join(append(all, fmt.Sprintf("the proxy by mark %#x", spec.Mark)), "; ")
	}
	if spec.NoConntrack {
		all = append(all, fmt.Sprintf("the proxy by mark %#x", spec.Marks().Proxy))
	}
	add("the proxy by uids", numbers(spec.ProxyUIDs))
	add("the proxy by gids", numbers(spec.ProxyGIDs))
	return strings.Join(all, "; ")
}

// inboundExceptions returns the ports that inboundPolicy excludes.
func inboundExceptions(spec interception.Spec) interception.PortRanges {
	ports := slices.Clone(spec.InboundExcludePorts)
	if excludesTunnel(spec) {
		ports = append(ports, interception.PortRange{First: spec.TunnelPort, Last: spec.TunnelPort})
	}
	if excludesSSH(spec) {
		ports = append(ports, interception.PortRange{First: interception.SSHPort, Last: interception.SSHPort})
	}
	return interception.NewPortRanges(ports...)
}

func texts[T fmt.Stringer](values []T) []string {
	words := make([]string, 0, min(len(values), maxListed))
	for _, value := range values {
		words = append(words, value.String())
	}
	return words
}

func numbers(ids []uint32) []string {
	var words []string
	for _, id := range ids {
		words = append(words, fmt.Sprint(id))
	}
	return words
}

// listed returns the first values, and how many more there are.
func listed(values []string) string {
	if more := len(values) - maxListed; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(values[:maxListed], ", "), more)
	}
	return strings.Join(values, ", ")
}
