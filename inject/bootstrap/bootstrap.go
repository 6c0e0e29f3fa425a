// Package bootstrap makes the configuration that Envoy starts with as Shunt's
// transparent pass-through: every connection that the rules of package
// interception send to it is taken, told apart, logged, and carried on to where
// it was going.
//
// Options flow in; a typed, validated bootstrap flows out, and its text.
//
//	client ─► virtualInbound :15006 ─► InboundPassthroughCluster* ─► application, at the connection's own destination
//	application ─► virtualOutbound :15001 ─► PassthroughCluster ─► the connection's own destination
//	application ─► dns :15053 ─► the pod's resolvers
//
// A connection that was going to one of the first two ports itself would come
// back for ever: it ends in BlackHoleCluster.
package bootstrap

import (
	"errors"
	"fmt"
	"slices"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// Options say what the proxy is to take connections from. They are comparable:
// equal options make equal bootstraps.
type Options struct {
	// Mode is how the rules send connections here. With ModeNone they do not:
	// the listeners are open for whoever else sends them connections.
	Mode interception.Mode
	// IPv4 and IPv6 are the families to listen on: at least one.
	IPv4, IPv6 bool

	OutboundPort uint16 // takes the connections that the pod opens
	InboundPort  uint16 // takes the connections to the pod
	HealthPort   uint16 // serves HealthPath
	MetricsPort  uint16 // serves MetricsPath
	AdminPort    uint16 // Envoy's administration interface, on loopback only

	// DNSPort takes DNS queries, udp and tcp, for the resolvers that
	// ResolversFile lists; 0 where DNS is not captured.
	DNSPort uint16
	// DNSAllInterfaces has DNSPort listen on every address of the pod and not
	// on loopback alone: queries that come in by an interface, such as a
	// virtual machine's, are redirected to that interface's address.
	DNSAllInterfaces bool

	// ProtocolDetection tells HTTP and TLS from other protocols by the first
	// bytes that the client sends; without it every connection is just TCP.
	ProtocolDetection bool
	// ServerFirstPorts are destination ports whose connections are just TCP,
	// at once, because the server speaks first: ports and ranges as
	// interception.ParsePortRanges takes them.
	ServerFirstPorts string

	// Mark is what the proxy's connections to the application carry with
	// ModeTProxy, so that the rules know them.
	Mark uint32
}

// DefaultServerFirstPorts are those of IANA's registry, and the customary ones
// beside them, on which the server speaks first: FTP, SSH, Telnet, SMTP, POP3,
// NNTP, IMAP, submission, rsync, MySQL, Subversion, ManageSieve, NATS and VNC.
const DefaultServerFirstPorts = "21-25,110,119,143,587,873,2525,3306,3690,4190,4222,5900-5909"

// DefaultOptions returns what goes with interception.Default.
func DefaultOptions() Options {
	spec := interception.Default()
	return Options{
		Mode: spec.Mode(), IPv4: true, IPv6: true,
		OutboundPort: spec.OutboundPort, InboundPort: spec.InboundPort,
		HealthPort: interception.HealthPort, MetricsPort: interception.MetricsPort, AdminPort: interception.AdminPort,
		ProtocolDetection: true, ServerFirstPorts: DefaultServerFirstPorts,
		Mark: spec.Mark,
	}
}

func (o Options) validate() error {
	var errs []error
	switch o.Mode {
	case interception.ModeRedirect, interception.ModeTProxy, interception.ModeNone:
	default:
		errs = append(errs, fmt.Errorf("mode: invalid value %q; accepted: REDIRECT, TPROXY, NONE", o.Mode))
	}
	if !o.IPv4 && !o.IPv6 {
		errs = append(errs, errors.New("families: none; accepted: IPv4, IPv6 or both"))
	}
	if o.Mode == interception.ModeTProxy && o.Mark == 0 {
		errs = append(errs, errors.New("mark: invalid value 0; accepted: 1 or more, because 0 is what unmarked packets carry"))
	}
	if _, err := interception.ParsePortRanges(o.ServerFirstPorts); err != nil {
		errs = append(errs, fmt.Errorf("server-first ports: %w", err))
	}
	return errors.Join(append(errs, o.validatePorts()...)...)
}

func (o Options) validatePorts() []error {
	var errs []error
	var seen []uint16
	for _, port := range []uint16{o.OutboundPort, o.InboundPort, o.HealthPort, o.MetricsPort, o.AdminPort} {
		if port == 0 || slices.Contains(seen, port) {
			errs = append(errs, fmt.Errorf("ports: invalid value %d; accepted: five different ports from 1 to 65535", port))
		}
		seen = append(seen, port)
	}
	if o.DNSPort != 0 && slices.Contains(seen, o.DNSPort) {
		errs = append(errs, fmt.Errorf("DNS port: invalid value %d; accepted: a port that is not one of the others, or 0", o.DNSPort))
	}
	return errs
}

// New returns the bootstrap, or an error for options that make none.
func New(opts Options) (*bootstrapv3.Bootstrap, error) {
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("make a bootstrap: %w", err)
	}
	b := &builder{Options: opts}
	made := &bootstrapv3.Bootstrap{
		Admin: b.admin(),
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{
			Listeners: b.listeners(),
			Clusters:  b.clusters(),
		},
	}
	if err := errors.Join(append(b.errs, made.ValidateAll())...); err != nil {
		return nil, fmt.Errorf("make a bootstrap: %w", err)
	}
	return made, nil
}

// builder makes the parts of a bootstrap and gathers what is wrong with them.
type builder struct {
	Options
	errs []error
}

// message is a configuration that can check itself.
type message interface {
	proto.Message
	ValidateAll() error
}

// typed wraps the configuration of an extension. It is checked here because
// the validation of the whole does not look into wrapped messages.
func (b *builder) typed(m message) *anypb.Any {
	if err := m.ValidateAll(); err != nil {
		b.errs = append(b.errs, err)
	}
	wrapped, err := anypb.New(m)
	if err != nil {
		b.errs = append(b.errs, err)
	}
	return wrapped
}
