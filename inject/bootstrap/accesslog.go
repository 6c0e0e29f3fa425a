package bootstrap

import (
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// logFields are those that are the same for every connection: the keys of a
// log line, and Envoy's commands for them. The first five say the whole path,
// client to proxy and proxy to server.
var logFields = map[string]string{
	"downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
	"downstream_local_address":  "%DOWNSTREAM_LOCAL_ADDRESS%",
	"upstream_cluster":          "%UPSTREAM_CLUSTER%",
	"upstream_local_address":    "%UPSTREAM_LOCAL_ADDRESS%",
	"upstream_host":             "%UPSTREAM_HOST%",

	"start_time":                        "%START_TIME%",
	"duration":                          "%DURATION%",
	"protocol":                          "%PROTOCOL%",
	"bytes_received":                    "%BYTES_RECEIVED%",
	"bytes_sent":                        "%BYTES_SENT%",
	"response_flags":                    "%RESPONSE_FLAGS%",
	"connection_termination_details":    "%CONNECTION_TERMINATION_DETAILS%",
	"upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}

// accessLog writes one JSON line to standard output for each connection, when
// it ends. It belongs to the listener rather than to each of its chains: a
// connection that no chain took would leave its line too.
func (b *builder) accessLog(listener string, direction corev3.TrafficDirection) *accesslogv3.AccessLog {
	fields := map[string]*structpb.Value{
		"listener":  structpb.NewStringValue(listener),
		"direction": structpb.NewStringValue(strings.ToLower(direction.String())),
	}
	for name, command := range logFields {
		fields[name] = structpb.NewStringValue(command)
	}
	return &accesslogv3.AccessLog{
		Name: "envoy.access_loggers.stdout",
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: b.typed(&streamv3.StdoutAccessLog{
			AccessLogFormat: &streamv3.StdoutAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
				Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: &structpb.Struct{Fields: fields}},
			}},
		})},
	}
}
