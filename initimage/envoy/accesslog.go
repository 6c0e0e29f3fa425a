package envoy

import "strings"

// logField is a key of a log line, and Envoy's command for its value.
type logField struct{ name, command string }

// logFields begin with the whole path, client to proxy and proxy to server. The
// client's address is that of its connection: the other one that Envoy knows is
// whatever the client writes in X-Forwarded-For. Values that a client chooses are
// cut at a length, to bound the line. A field without a value is left out, such as
// the method of a connection that is not HTTP.
func (b builder) logFields() []logField {
	path := "%REQ(:PATH):1024%"
	if !b.AccessLogQueries {
		path = "%PATH(NQ:PATH):1024%"
	}
	return []logField{
		{"start_time", "%START_TIME%"},
		{"downstream_remote_address", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%"},
		{"downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"},
		{"upstream_cluster", "%UPSTREAM_CLUSTER%"},
		{"upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"},
		{"upstream_host", "%UPSTREAM_HOST%"},

		{"listener", "%METADATA(LISTENER:" + listenerMetadata + ":name)%"},
		{"direction", "%METADATA(LISTENER:" + listenerMetadata + ":direction)%"},
		{"filter_chain", "%FILTER_CHAIN_NAME%"},

		{"duration", "%DURATION%"},
		{"bytes_received", "%BYTES_RECEIVED%"},
		{"bytes_sent", "%BYTES_SENT%"},
		{"response_flags", "%RESPONSE_FLAGS%"},
		{"connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"},
		{"upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"},

		{"protocol", "%PROTOCOL%"},
		{"method", "%REQ(:METHOD):64%"},
		{"authority", "%REQ(:AUTHORITY):256%"},
		{"path", path},
		{"response_code", "%RESPONSE_CODE%"},
		{"response_code_details", "%RESPONSE_CODE_DETAILS%"},
		{"requested_server_name", "%REQUESTED_SERVER_NAME%"},
	}
}

// listenerMetadata is the metadata key for a listener's name and direction. With it
// all listeners share one log format.
const listenerMetadata = "shunt"

func listenerNames(name, direction string) object {
	return object{set("filter_metadata", object{set(listenerMetadata, object{
		set("name", name), set("direction", strings.ToLower(direction)),
	})})}
}

// failures are what AccessLogErrors logs: everything that Envoy has a flag for,
// such as a server that could not be reached or reset its connection, and a
// server's own errors.
var failures = object{set("or_filter", object{set("filters", list{
	object{set("response_flag_filter", object{})},
	statusFrom(500),
})})}

func statusFrom(least int) object {
	return object{set("status_code_filter", object{set("comparison", object{
		set("op", "GE"), set("value", object{set("default_value", least), set("runtime_key", "shunt.access_log.least_status")}),
	})})}
}

// accessLog writes one JSON line to standard output at the end of each request, or
// of each connection that is not HTTP. anchor names this log; it has the filter,
// unless that is nil.
func (b builder) accessLog(anchor string, filter object) []field {
	if b.AccessLog == AccessLogNone {
		return nil
	}
	var fields object
	for _, f := range b.logFields() {
		fields = append(fields, set(f.name, f.command))
	}
	log := extension("envoy.access_loggers.stdout", "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
		set("log_format", anchored{"log_format", object{set("omit_empty_values", true), set("json_format", fields)}}))
	if b.AccessLog == AccessLogErrors {
		filter = failures
	}
	if filter != nil {
		log = append(log, set("filter", filter))
	}
	return []field{set("access_log", anchored{anchor, list{log}})}
}

// wholeLog is the log of what kubelet does not probe.
func (b builder) wholeLog() []field { return b.accessLog("access_log", nil) }

// connectionLog and requestLog are the logs of connections that come in.
func (b builder) connectionLog() []field {
	if filter := b.notProbeConnection(); filter != nil {
		return b.accessLog("connection_log", filter)
	}
	return b.wholeLog()
}

func (b builder) requestLog() []field {
	if filter := b.notProbe(); filter != nil {
		return b.accessLog("request_log", filter)
	}
	return b.wholeLog()
}
