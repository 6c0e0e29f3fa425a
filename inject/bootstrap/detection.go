package bootstrap

import (
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// inspectors look at the first bytes of a connection and leave them unread.
func (b *builder) inspectors() []*listenerv3.ListenerFilter {
	if !b.ProtocolDetection {
		return nil
	}
	inspector := func(name string, m message) *listenerv3.ListenerFilter {
		return &listenerv3.ListenerFilter{
			Name:           name,
			FilterDisabled: b.serverFirst(),
			ConfigType:     &listenerv3.ListenerFilter_TypedConfig{TypedConfig: b.typed(m)},
		}
	}
	return []*listenerv3.ListenerFilter{
		inspector("envoy.filters.listener.tls_inspector", &tlsinspectorv3.TlsInspector{}),
		inspector("envoy.filters.listener.http_inspector", &httpinspectorv3.HttpInspector{}),
	}
}

// serverFirst matches connections to the server-first ports; nil for none.
func (b *builder) serverFirst() *listenerv3.ListenerFilterChainMatchPredicate {
	ranges, err := interception.ParsePortRanges(b.ServerFirstPorts)
	if err != nil {
		b.errs = append(b.errs, err)
	}
	var rules []*listenerv3.ListenerFilterChainMatchPredicate
	for _, r := range ranges {
		rules = append(rules, &listenerv3.ListenerFilterChainMatchPredicate{
			Rule: &listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange{
				DestinationPortRange: &typev3.Int32Range{Start: int32(r.First), End: int32(r.Last) + 1}, // the end is not in it
			},
		})
	}
	switch len(rules) {
	case 0:
		return nil
	case 1:
		return rules[0]
	default:
		return &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_OrMatch{
			OrMatch: &listenerv3.ListenerFilterChainMatchPredicate_MatchSet{Rules: rules},
		}}
	}
}
