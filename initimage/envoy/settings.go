package envoy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// Settings are what a user may choose about Envoy. Ports, mark and DNS capture are
// not among them: they come from the Spec whose connections Envoy handles.
type Settings struct {
	// HealthPort serves HealthPath, 1 to 65535.
	HealthPort uint16 `json:"healthPort"`
	// InboundHTTPPorts and OutboundHTTPPorts are the destination ports on which
	// Envoy detects HTTP and TLS; on all others it forwards bytes. "" means none,
	// AllPorts all but ServerFirstPorts; anything else is read by
	// interception.ParsePortRanges.
	InboundHTTPPorts  string `json:"inboundHTTPPorts"`
	OutboundHTTPPorts string `json:"outboundHTTPPorts"`
	// HTTP bounds what a client can make Envoy keep, on those ports.
	HTTP HTTPLimits `json:"http"`
	// AccessLog is what is written to standard output.
	AccessLog AccessLog `json:"accessLog"`
	// AccessLogQueries adds the query strings of HTTP requests to the access log.
	AccessLogQueries bool `json:"accessLogQueries"`
	// Probes are kubelet's, which AccessLogTraffic leaves out.
	Probes []Probe `json:"probes"`
	// StatsMatcher adds to the statistics that Envoy keeps for every pod.
	StatsMatcher StatsMatcher `json:"statsMatcher"`
	// Keepalive is TCP's, on both of Envoy's connections.
	Keepalive Keepalive `json:"keepalive"`
	// MemoryLimit is that of Envoy's container in bytes; 0 for none. Near it Envoy
	// rejects new work, so that it is not killed with all its connections.
	MemoryLimit int64 `json:"memoryLimit"`
}

// AllPorts is the value of InboundHTTPPorts and OutboundHTTPPorts with which Envoy
// inspects all connections but those to ServerFirstPorts.
const AllPorts = "*"

// ServerFirstPorts are the ports on which the server speaks first, registered with
// IANA or customary: FTP, SSH, Telnet, SMTP, POP3, NNTP, IMAP, submission, rsync,
// MySQL, Subversion, ManageSieve, NATS and VNC. Waiting for the client's first
// bytes would delay these.
const ServerFirstPorts = "21-25,110,119,143,587,873,2525,3306,3690,4190,4222,5900-5909"

// HTTPLimits bound what one client can make Envoy keep.
type HTTPLimits struct {
	// MaxHeaderKB bounds all headers of a request or response together, 1 to 8192
	// KiB; Envoy's default is 60.
	MaxHeaderKB uint32 `json:"maxHeaderKB"`
	// MaxStreams bounds the concurrent requests on a connection of HTTP/2, 1 to
	// 2147483647.
	MaxStreams uint32 `json:"maxStreams"`
	// HeaderSeconds is how long a client may take to send a request's headers; 0
	// means no limit.
	HeaderSeconds uint32 `json:"headerSeconds"`
}

// AccessLog is which connections and requests are logged.
type AccessLog string

// The values of AccessLog.
const (
	AccessLogAll     AccessLog = "all"
	AccessLogTraffic AccessLog = "traffic" // all but kubelet's probes that succeed
	AccessLogErrors  AccessLog = "errors"  // those that did not end well
	AccessLogNone    AccessLog = "none"
)

// Keepalive is how the kernel finds out that the other end of an idle connection is
// gone, and how it keeps devices on the path from forgetting the connection
// (tcp(7): TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT).
type Keepalive struct {
	TimeSeconds     uint32 `json:"timeSeconds"`     // idle before the first probe, 1 to 32767
	IntervalSeconds uint32 `json:"intervalSeconds"` // between two probes, 1 to 32767
	Probes          uint32 `json:"probes"`          // unanswered before the connection is closed, 1 to 127
}

// DefaultSettings returns the settings of a pod without annotations.
func DefaultSettings() Settings {
	return Settings{
		HealthPort: interception.HealthPort,
		HTTP:       HTTPLimits{MaxHeaderKB: 60, MaxStreams: 100, HeaderSeconds: 60},
		AccessLog:  AccessLogTraffic, AccessLogQueries: true,
		// Shorter than the shortest known idle timeout of a cloud's load balancers
		// and NATs: Azure's 4 minutes. Linux itself gives up after about ten
		// unanswered probes.
		Keepalive: Keepalive{TimeSeconds: 60, IntervalSeconds: 10, Probes: 9},
	}
}

// ParseSettings reads what Settings.String prints: JSON. What it leaves out is as
// in DefaultSettings.
func ParseSettings(text string) (Settings, error) {
	s := DefaultSettings()
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil {
		return Settings{}, fmt.Errorf("invalid value %q: %w; accepted: an object of Envoy's settings in JSON, such as {}", text, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Settings{}, fmt.Errorf("invalid value %q: there is text after the object; accepted: one object in JSON", text)
	}
	return s, s.Validate()
}

// String prints the settings that are not the default, as JSON.
func (s Settings) String() string {
	defaults := DefaultSettings()
	text, err := json.Marshal(struct {
		HealthPort        *uint16      `json:"healthPort,omitempty"`
		InboundHTTPPorts  *string      `json:"inboundHTTPPorts,omitempty"`
		OutboundHTTPPorts *string      `json:"outboundHTTPPorts,omitempty"`
		HTTP              *HTTPLimits  `json:"http,omitempty"`
		AccessLog         *AccessLog   `json:"accessLog,omitempty"`
		AccessLogQueries  *bool        `json:"accessLogQueries,omitempty"`
		Probes            []Probe      `json:"probes,omitempty"`
		StatsMatcher      StatsMatcher `json:"statsMatcher,omitzero"`
		Keepalive         *Keepalive   `json:"keepalive,omitempty"`
		MemoryLimit       *int64       `json:"memoryLimit,omitempty"`
	}{
		unless(s.HealthPort, defaults.HealthPort), unless(s.InboundHTTPPorts, defaults.InboundHTTPPorts),
		unless(s.OutboundHTTPPorts, defaults.OutboundHTTPPorts), unless(s.HTTP, defaults.HTTP), unless(s.AccessLog, defaults.AccessLog),
		unless(s.AccessLogQueries, defaults.AccessLogQueries), s.Probes, s.StatsMatcher, unless(s.Keepalive, defaults.Keepalive),
		unless(s.MemoryLimit, defaults.MemoryLimit),
	})
	if err != nil {
		panic("plain values always encode: " + err.Error())
	}
	// Kubernetes would expand $(NAME) in an argument, and make one of two "$".
	return strings.ReplaceAll(string(text), "$", `\u0024`)
}

// unless returns a value, or nil if it is the default.
func unless[T comparable](value, ofDefault T) *T {
	if value == ofDefault {
		return nil
	}
	return &value
}

// Validate returns everything that is wrong with the settings, by their names in
// JSON.
func (s Settings) Validate() error {
	var errs []error
	within := func(name string, value, least, most int64) {
		if value < least || value > most {
			errs = append(errs, fmt.Errorf("%s: invalid value %d; accepted: %d to %d", name, value, least, most))
		}
	}
	const maxSeconds, maxProbes = 32767, 127 // MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL, MAX_TCP_KEEPCNT of linux/tcp.h
	within("healthPort", int64(s.HealthPort), 1, 65535)
	within("http.maxHeaderKB", int64(s.HTTP.MaxHeaderKB), 1, 8192)
	within("http.maxStreams", int64(s.HTTP.MaxStreams), 1, 1<<31-1)
	within("keepalive.timeSeconds", int64(s.Keepalive.TimeSeconds), 1, maxSeconds)
	within("keepalive.intervalSeconds", int64(s.Keepalive.IntervalSeconds), 1, maxSeconds)
	within("keepalive.probes", int64(s.Keepalive.Probes), 1, maxProbes)
	within("memoryLimit", s.MemoryLimit, 0, 1<<62)
	switch s.AccessLog {
	case AccessLogAll, AccessLogTraffic, AccessLogErrors, AccessLogNone:
	default:
		errs = append(errs, fmt.Errorf("accessLog: invalid value %q; accepted: all, traffic, errors, none", s.AccessLog))
	}
	if len(s.Probes) > MostProbes {
		errs = append(errs, fmt.Errorf("probes: invalid value of %d probes; accepted: at most %d", len(s.Probes), MostProbes))
	}
	for i, probe := range s.Probes {
		if err := probe.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("probes[%d].%w", i, err))
		}
	}
	for _, ports := range []struct{ name, text string }{
		{"inboundHTTPPorts", s.InboundHTTPPorts}, {"outboundHTTPPorts", s.OutboundHTTPPorts},
	} {
		if ports.text == AllPorts {
			continue
		}
		if _, err := interception.ParsePortRanges(ports.text); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", ports.name, err))
		}
	}
	for _, wrong := range s.StatsMatcher.Validate() {
		errs = append(errs, fmt.Errorf("statsMatcher.%s: %w", wrong.Field, wrong))
	}
	return errors.Join(errs...)
}

// SharedDirectory is where shunt-init leaves what Envoy reads. Envoy's container
// mounts it.
const SharedDirectory = "/shunt"

// NodeVariable is the variable with the node's address, for shunt-init.
const NodeVariable = "SHUNT_NODE_IP"

// Files in SharedDirectory.
const (
	// BootstrapFile is what Bootstrap returns.
	BootstrapFile = "envoy.yaml"
	// ResolversFile is what Resolvers returns.
	ResolversFile = "resolvers.json"
)

const (
	// HealthPath is what Envoy serves on Settings.HealthPort: 200 while both
	// pass-through listeners accept connections, 503 if one does not, or once Envoy
	// was told to fail (/healthcheck/fail of the admin interface).
	HealthPath = "/healthz/ready"
	// MetricsPath is what Envoy serves on interception.MetricsPort.
	MetricsPath = "/stats/prometheus"
)

// connectTimeout is Istio's for its pass-through clusters.
const connectTimeout = 10 * time.Second
