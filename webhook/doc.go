// Package webhook takes the API server's admission reviews in and gives package
// inject's decisions out as responses:
//
//	AdmissionReview ─► Handler: decode the pod, look its namespace up ─► inject.Injector.Inject
//	inject.Result ─► response: a JSON patch, a skip with its reason, or a denial with all its causes
//
// What a client can make it use is bounded: intake bounds the memory of bodies,
// Handler.turns that of decoded pods, connections their number.
//
// Every decision is a log line and a count of Metrics with the same reason.
// NewManager runs a Handler in a cluster, with probes, metrics and a certificate
// that is read again when it changes. Handler.HTTP serves it without one.
package webhook
