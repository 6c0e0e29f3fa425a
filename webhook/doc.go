// Package webhook puts package inject behind the API server's admission
// webhooks. It is thin:
//
//	AdmissionReview ─► Handler: decode the pod, look its namespace up ─► inject.Inject
//	inject.Result ─► response: a JSON patch, a skip with its reason, or a refusal with all its causes
//
// What a client can take of it is bounded: intake has the memory of bodies,
// Handler.turns that of pods that are decoded, connections their number.
//
// Every decision is a log line and a count of Metrics under the same reason.
// NewManager runs a Handler in a cluster, with probes, metrics and a
// certificate that is read again when it changes; Handler.HTTP serves it
// without one.
package webhook
