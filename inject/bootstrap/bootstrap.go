// Package bootstrap makes the configuration that Envoy starts with as Shunt's
// transparent pass-through: every connection that the rules of package
// interception send to it is taken, logged, and carried on to where it was
// going.
//
// Options flow in; a typed, validated bootstrap flows out, and its text.
//
//	client ─► virtualInbound :15006 ─► InboundPassthroughCluster* ─► application, at the connection's own destination
//	application ─► virtualOutbound :15001 ─► PassthroughCluster ─► the connection's own destination
//
// A connection that was going to one of these two ports itself would come back
// for ever: it ends in BlackHoleCluster.
package bootstrap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// Options say what the proxy is to take connections from.
type Options struct {
	// Mode is how the rules send connections here. With ModeNone they do not,
	// and the proxy has its health and metrics listeners only.
	Mode interception.Mode
	// IPv4 and IPv6 are the families to listen on: at least one.
	IPv4, IPv6 bool

	OutboundPort uint16 // takes the connections that the pod opens
	InboundPort  uint16 // takes the connections to the pod
	HealthPort   uint16 // serves HealthPath
	MetricsPort  uint16 // serves MetricsPath
	AdminPort    uint16 // Envoy's administration interface, on loopback only

	// Mark is what the proxy's connections to the application carry with
	// ModeTProxy, so that the rules know them.
	Mark uint32
}

// DefaultOptions returns what goes with interception.Default.
func DefaultOptions() Options {
	spec := interception.Default()
	return Options{
		Mode: spec.Mode(), IPv4: true, IPv6: true,
		OutboundPort: spec.OutboundPort, InboundPort: spec.InboundPort,
		HealthPort: interception.HealthPort, MetricsPort: interception.MetricsPort, AdminPort: interception.AdminPort,
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
	seen := map[uint16]bool{}
	for _, port := range []uint16{o.OutboundPort, o.InboundPort, o.HealthPort, o.MetricsPort, o.AdminPort} {
		if port == 0 || seen[port] {
			errs = append(errs, fmt.Errorf("ports: invalid value %d; accepted: five different ports from 1 to 65535", port))
		}
		seen[port] = true
	}
	return errors.Join(errs...)
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

// JSON prints a bootstrap in one line, always the same for the same bootstrap.
func JSON(b *bootstrapv3.Bootstrap) ([]byte, error) {
	// protojson adds spaces at random so that nobody relies on its bytes.
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("print the bootstrap: %w", err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return nil, fmt.Errorf("print the bootstrap: %w", err)
	}
	return compact.Bytes(), nil
}

// printed remembers the text of options that were asked for before. A process
// meets as many as it has modes, and to make one takes longer than all the
// rest of an injection.
var printed sync.Map // of Options to string

// Text is New and JSON in one, fit for Envoy's --config-yaml: JSON is YAML.
func Text(opts Options) (string, error) {
	if text, known := printed.Load(opts); known {
		return text.(string), nil
	}
	made, err := New(opts)
	if err != nil {
		return "", err
	}
	text, err := JSON(made)
	if err != nil {
		return "", err
	}
	printed.Store(opts, string(text))
	return string(text), nil
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
