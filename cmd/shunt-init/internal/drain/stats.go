package drain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// UnderWay counts what goes through the proxy at a moment.
type UnderWay struct {
	Requests    int // HTTP requests without a whole response, and upgraded connections
	Connections int // connections of anything but HTTP
}

// Any reports whether anything is under way.
func (u UnderWay) Any() bool { return u != UnderWay{} }

// String says it in words.
func (u UnderWay) String() string {
	return plural(u.Requests, "request") + " and " + plural(u.Connections, "connection")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// Names of the pass-through listeners, which a suffix for the family may
// follow. What goes through others (health, metrics, the admin interface) is
// the proxy's own.
var listenerNames = []string{"virtualInbound", "virtualOutbound"}

// Statistics of Envoy (its documentation, "Listener", "HTTP connection
// manager" and "TCP proxy"). It has no gauge of the connections that a
// tcp_proxy carries: they are those of the listener that no HTTP connection
// manager has.
const (
	listenerPrefix = "listener."
	httpPrefix     = "http."
	tcpPrefix      = "tcp."

	connectionsActive = ".downstream_cx_active"
	inspectedActive   = ".downstream_pre_cx_active" // accepted, and not known yet for what they are
	requestsActive    = ".downstream_rq_active"
	flushActive       = ".upstream_flush_active" // the client has closed, and the server has not got all of it yet
	requestsCompleted = ".downstream_rq_completed"

	// statsFilter is a regular expression, fit for a URL, that finds those.
	statsFilter = "cx_active%7Crq_active%7Crq_completed%7Cflush_active"
)

// count reads what is under way from Envoy's answers to /listeners and /stats.
//
//	connection                      | listener's gauge | HTTP's gauges       | counts as
//	HTTP, between two requests      | active           | active              | nothing
//	HTTP, in a request              | active           | active, and request | a request
//	upgraded or CONNECT             | active           | active, and request | a request
//	anything else                   | active           |                     | a connection
//	not told apart yet              | pre_cx           |                     | a connection
//	closed, not all of it passed on |                  | (tcp's flush)       | a connection
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
	// The gauges are not read at one moment: HTTP may have a connection that
	// the listener had not yet.
	left.Connections = max(left.Connections, 0)
	for name, value := range values {
		if strings.HasPrefix(name, tcpPrefix) && strings.HasSuffix(name, flushActive) {
			left.Connections += value
		}
	}
	return left, nil
}

// scopes are the beginnings of the names of the pass-through listeners'
// statistics, from lines such as "virtualInbound::0.0.0.0:15006".
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

// managers are the beginnings of the names of the statistics of the HTTP
// connection managers that the pass-through listeners have. A listener counts
// responses for each of its own, under its prefix.
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

// parse reads lines such as "http.admin.downstream_rq_active: 1". What has no
// whole number, such as a histogram, is left out.
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
