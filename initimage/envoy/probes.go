package envoy

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// Probe is an httpGet probe of the pod over plain HTTP, as kubelet sends it.
type Probe struct {
	Port uint16 `json:"port"`
	Path string `json:"path"` // with its query
	// Bytes is the size of the request without the value of Host and kubelet's
	// version.
	Bytes int `json:"bytes"`
}

const (
	// MostProbes is how many probes settings may hold.
	MostProbes = 50

	longestPath       = 200 // in bytes
	mostBytesOfProbes = 1 << 20
)

// Validate returns what is wrong with the probe.
func (p Probe) Validate() error {
	switch {
	case p.Port == 0:
		return errors.New("port: invalid value 0; accepted: 1 to 65535")
	case !strings.HasPrefix(p.Path, "/") || len(p.Path) > longestPath || checkText(p.Path) != nil:
		return fmt.Errorf("path: %w", &interception.ValueError{
			Value: p.Path, Accepted: fmt.Sprintf("a path of at most %d printable ASCII characters", longestPath),
		})
	case p.Bytes < 1 || p.Bytes > mostBytesOfProbes:
		return fmt.Errorf("bytes: invalid value %d; accepted: 1 to %d", p.Bytes, mostBytesOfProbes)
	}
	return nil
}

// With AccessLogTraffic kubelet's probes are not logged. They are told by what the
// pod itself declares, and by their success:
//
//	where HTTP is detected | a GET of a probe's path by kube-probe/…, and a status below 400
//	elsewhere              | a connection from the node to a probe's port, in which the client has sent as much as kubelet does
//
// So a forged probe hides no more than a GET of a probe's path. As a connection it
// hides one request of that size from the node, whose content Envoy does not know.

// notProbe is the filter of requests that are logged; nil if all are.
func (b builder) notProbe() object {
	if b.AccessLog != AccessLogTraffic || len(b.Probes) == 0 {
		return nil
	}
	var paths []string
	for _, p := range b.Probes {
		paths = append(paths, regexp.QuoteMeta(p.Path))
	}
	isNot := func(header string, matcher ...field) object {
		return object{set("header_filter", object{set("header", object{
			set("name", header), set("invert_match", true), set("treat_missing_header_as_empty", true),
			set("string_match", object(matcher)),
		})})}
	}
	return object{set("or_filter", object{set("filters", list{
		object{set("response_flag_filter", object{})},
		statusFrom(400),
		isNot(":method", set("exact", "GET")),
		isNot(":path", set("safe_regex", object{set("regex", strings.Join(paths, "|"))})),
		isNot("user-agent", set("prefix", "kube-probe/")),
	})})}
}

// versionLengths are those of kubelet's version, such as 1.9, 1.36 or 1.100+.
const versionLengths = "[3, 4, 5, 6]"

// notProbeConnection is the filter of connections that are logged; nil if all are.
// kubelet's Host is the address that it connects to. Envoy does not log where an
// expression fails: it may only use what every connection has.
func (b builder) notProbeConnection() object {
	if b.AccessLog != AccessLogTraffic || len(b.Probes) == 0 || len(b.NodeAddresses) == 0 {
		return nil
	}
	var sources, probes []string
	for _, addr := range b.NodeAddresses {
		anyPort := strings.TrimSuffix(netip.AddrPortFrom(addr, 0).String(), "0")
		sources = append(sources, fmt.Sprintf("source.address.startsWith(%q)", anyPort))
	}
	for _, p := range b.Probes {
		probes = append(probes, fmt.Sprintf("destination.port == %d && request.size - size(destination.address) - %d in %s",
			p.Port, p.Bytes, versionLengths))
	}
	return object{set("extension_filter", extension("envoy.access_loggers.extension_filters.cel",
		"envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter", set("expression", fmt.Sprintf(
			"!(response.flags == 0 && (%s) && (%s))", strings.Join(sources, " || "), strings.Join(probes, " || ")))))}
}
