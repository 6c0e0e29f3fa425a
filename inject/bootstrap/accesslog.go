package bootstrap

import (
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// logFields are the keys of a log line, and Envoy's commands for them. The
// first five say the whole path, client to proxy and proxy to server. The
// client's address is that of its connection: the other one that Envoy has is
// whatever the client says in X-Forwarded-For. A field without a value, such as
// the method of a connection that is not HTTP, is left out of its line.
var logFields = map[string]string{
	"downstream_remote_address": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
	"downstream_local_address":  "%DOWNSTREAM_LOCAL_ADDRESS%",
	"upstream_cluster":          "%UPSTREAM_CLUSTER%",
	"upstream_local_address":    "%UPSTREAM_LOCAL_ADDRESS%",
	"upstream_host":             "%UPSTREAM_HOST%",

	"listener":     "%METADATA(LISTENER:" + listenerMetadata + ":name)%",
	"direction":    "%METADATA(LISTENER:" + listenerMetadata + ":direction)%",
	"filter_chain": "%FILTER_CHAIN_NAME%",

	"start_time":                        "%START_TIME%",
	"duration":                          "%DURATION%",
	"bytes_received":                    "%BYTES_RECEIVED%",
	"bytes_sent":                        "%BYTES_SENT%",
	"response_flags":                    "%RESPONSE_FLAGS%",
	"connection_termination_details":    "%CONNECTION_TERMINATION_DETAILS%",
	"upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",

	"protocol":              "%PROTOCOL%",
	"method":                "%REQ(:METHOD)%",
	"authority":             "%REQ(:AUTHORITY)%",
	"path":                  "%REQ(:PATH)%",
	"response_code":         "%RESPONSE_CODE%",
	"response_code_details": "%RESPONSE_CODE_DETAILS%",
	"requested_server_name": "%REQUESTED_SERVER_NAME%",
}

// listenerMetadata is under which a listener says its name and direction, so
// that all of them have the same log format, which is then written out once.
const listenerMetadata = "shunt"

func listenerNames(l listener) *corev3.Metadata {
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
		listenerMetadata: {Fields: map[string]*structpb.Value{
			"name":      structpb.NewStringValue(l.name),
			"direction": structpb.NewStringValue(strings.ToLower(l.direction.String())),
		}},
	}}
}

// accessLog writes one JSON line to standard output when a request, or a
// connection that is not HTTP, has ended.
func (b *builder) accessLog() []*accesslogv3.AccessLog {
	fields := map[string]*structpb.Value{}
	for name, command := range logFields {
		fields[name] = structpb.NewStringValue(command)
	}
	return []*accesslogv3.AccessLog{{
		Name: "envoy.access_loggers.stdout",
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: b.typed(&streamv3.StdoutAccessLog{
			AccessLogFormat: &streamv3.StdoutAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
				OmitEmptyValues: true,
				Format:          &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: &structpb.Struct{Fields: fields}},
			}},
		})},
	}}
}
