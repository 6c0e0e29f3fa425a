package drain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// UnderWay counts what is in progress in the proxy.
type UnderWay struct {
	Requests    int // HTTP requests without a complete response, and upgraded connections
	Connections int // connections other than HTTP
}

// Any reports whether anything is in progress.
func (u UnderWay) Any() bool { return u != UnderWay{} }

// String prints the counts in words.
func (u UnderWay) String() string {
	return plural(u.Requests, "request") + " and " + plural(u.Connections, "connection")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// Names of the pass-through listeners. A suffix for the family may follow. What
// goes through other listeners (health, metrics, the admin interface) is the
// proxy's own.
var listenerNames = []string{"virtualInbound", "virtualOutbound"}

// Statistics of Envoy (its documentation, "Listener", "HTTP connection manager" and
// "TCP proxy"). Envoy has no gauge of the connections of a tcp_proxy: they are
// those of the listener that no HTTP connection manager has.
const (
	listenerPrefix = "listener."
	httpPrefix     = "http."
	tcpPrefix      = "tcp."

	connectionsActive = ".downstream_cx_active"
	inspectedActive   = ".downstream_pre_cx_active" // accepted, protocol not known yet
	requestsActive    = ".downstream_rq_active"
	flushActive       = ".upstream_flush_active" // the client has closed, and the server has not received everything yet
	requestsCompleted = ".downstream_rq_completed"

	// statsFilter is a regular expression for these, fit for a URL.
	statsFilter = "cx_active%7Crq_active%7Crq_completed%7Cflush_active"
)

// count returns what is in progress according to Envoy's answers to /listeners and
// /stats.
//
//	connection                      | listener's gauge | HTTP's gauges       | counts as
//	HTTP, between two requests      | active           | active              | nothing
//	HTTP, in a request              | active           | active, and request | a request
//	upgraded or CONNECT             | active           | active, and request | a request
//	anything else                   | active           |                     | a connection
//	protocol not known yet          | pre_cx           |                     | a connection
//	closed, not all of it forwarded |                  | (tcp's flush)       | a connection
func count(listeners, stats string) (UnderWay, error) {
	values := parse(stats)
	var left UnderWay
	for _, scope := range scopes(listeners) {
		active, known := values[scope+connectionsActive]
		if !known {
			return left, fmt.Errorf("/stats has no %s", scope+connectionsActive)
		}
		left.Connections += active + values[scope+inspectedActive]
	}
	for _, manager := range managers(listeners, values) {
		left.Connections -= values[manager+connectionsActive]
		left.Requests += values[manager+requestsActive]
	}
	// The gauges are not read at one moment: HTTP may have a connection that the
	// listener did not have yet.
	left.Connections = max(left.Connections, 0)
	for name, value := range values {
		if strings.HasPrefix(name, tcpPrefix) && strings.HasSuffix(name, flushActive) {
			left.Connections += value
		}
	}
	return left, nil
}

// scopes returns the prefixes of the pass-through listeners' statistics, from lines
// such as "virtualInbound::0.0.0.0:15006".
func scopes(listeners string) []string {
	var all []string
	for line := range strings.Lines(listeners) {
		name, address, found := strings.Cut(strings.TrimSpace(line), "::")
		passthrough := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
		if found && slices.ContainsFunc(listenerNames, passthrough) {
			all = append(all, listenerPrefix+strings.ReplaceAll(address, ":", "_"))
		}
	}
	return all
}

// managers returns the prefixes of the statistics of the HTTP connection managers
// of the pass-through listeners. A listener counts the responses of each of its own
// under that prefix.
func managers(listeners string, values map[string]int) []string {
	var all []string
	for _, scope := range scopes(listeners) {
		for name := range values {
			inListener, found := strings.CutPrefix(name, scope+"."+httpPrefix)
			prefix, completed := strings.CutSuffix(inListener, requestsCompleted)
			if found && completed && !slices.Contains(all, httpPrefix+prefix) {
				all = append(all, httpPrefix+prefix)
			}
		}
	}
	return all
}

// parse reads lines such as "http.admin.downstream_rq_active: 1". It skips what has
// no whole number, such as a histogram.
func parse(stats string) map[string]int {
	values := map[string]int{}
	for line := range strings.Lines(stats) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if value, err := strconv.Atoi(text); err == nil {
			values[name] = value
		}
	}
	return values
}
