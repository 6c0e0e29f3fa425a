package envoy

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strings"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// Envoy keeps some 2,000 statistics for these listeners and clusters, most of them
// histograms, the proxy's own health checks, and what a pass-through proxy never
// does. All of them are 266 to 374 kB a scrape.

// keptStatistics returns regular expressions for the statistics of every pod, which
// Envoy matches whole: connections, requests, bytes and errors of the pass-through
// listeners and of DNS, and the state of Envoy itself. shunt-init drain reads some
// of them (cmd/shunt-init/internal/drain), the alerts and the dashboard of
// config/prometheus others.
func (b builder) keptStatistics() []string {
	const clusters = `\.(\w*PassthroughCluster\w*|` + blackHoleCluster + `|` + resolversCluster + `)\.`
	ports := fmt.Sprintf("(%d|%d|%d)", b.spec.InboundPort, b.spec.OutboundPort, b.spec.DNS.Port)
	return []string{
		// A listener is named by its address. What has more letters is of a worker.
		`listener\.[^g-z]+_` + ports + `\.(downstream_cx_(total|active|overload_reject)|downstream_pre_cx_(active|timeout)|` +
			`no_filter_chain_match|http` + clusters + `downstream_rq_completed)`,
		`http` + clusters + `downstream_(cx_(total|active|protocol_error|[rt]x_bytes_total)|rq_(total|active|time|[1-5]xx|[rt]x_reset))`,
		`tcp` + clusters + `(downstream_cx_(total|[rt]x_bytes_total)|upstream_flush_active)`,
		`cluster` + clusters + `(upstream_cx_(total|active|connect_fail|connect_timeout|[rt]x_bytes_total)|` +
			`upstream_rq_(total|active|[1-5]xx|[rt]x_reset)|udp\.sess_.*)`,
		`udp` + clusters + `downstream_sess_.*`,
		`server\.(live|state|uptime|concurrency|total_connections|memory_(allocated|heap_size|physical_size))`,
		`overload\..*\.(active|pressure)`,
	}
}

// statsConfig limits what Envoy counts at all, which also saves memory.
func (b builder) statsConfig() []field {
	var patterns list
	for _, kept := range b.keptStatistics() {
		patterns = append(patterns, regexpPattern(kept))
	}
	for _, prefix := range b.StatsMatcher.Prefixes {
		patterns = append(patterns, object{set("prefix", prefix)})
	}
	for _, suffix := range b.StatsMatcher.Suffixes {
		patterns = append(patterns, object{set("suffix", suffix)})
	}
	for _, more := range b.StatsMatcher.Regexps {
		patterns = append(patterns, regexpPattern(more))
	}
	return []field{explained("Most of Envoy's statistics are never looked at. proxyStatsMatcher adds to these; .* is all.",
		"stats_config", object{set("stats_matcher", object{set("inclusion_list", object{set("patterns", patterns)})})})}
}

func regexpPattern(text string) object {
	return object{set("safe_regex", object{set("regex", text)})}
}

// StatsMatcher names statistics of Envoy, as Istio's ProxyStatsMatcher does: one
// that matches any of the three is kept.
type StatsMatcher struct {
	Prefixes []string `json:"inclusionPrefixes,omitempty"`
	Suffixes []string `json:"inclusionSuffixes,omitempty"`
	// Regexps match whole names; ".*" matches all.
	Regexps []string `json:"inclusionRegexps,omitempty"`
}

// IsZero reports whether nothing is named.
func (m StatsMatcher) IsZero() bool { return len(m.Prefixes)+len(m.Suffixes)+len(m.Regexps) == 0 }

const (
	mostPatterns   = 50  // of a StatsMatcher
	longestPattern = 200 // in bytes

	acceptedPatterns = "50 patterns in all three lists together"
	acceptedText     = "1 to 200 printable ASCII characters without a space"
	acceptedRegexp   = "a regular expression as in RE2, of " + acceptedText + ", with backslashes only before punctuation and " +
		"d, w, s, b, D, W, S or B"
)

// PatternError is what is wrong with a StatsMatcher.
type PatternError struct {
	Field string // such as inclusionRegexps[1]
	*interception.ValueError
}

// Validate returns an error for each pattern that Envoy would not start with.
func (m StatsMatcher) Validate() []PatternError {
	if n := len(m.Prefixes) + len(m.Suffixes) + len(m.Regexps); n > mostPatterns {
		return []PatternError{{"inclusionRegexps", &interception.ValueError{
			Value: fmt.Sprintf("%d patterns", n), Accepted: acceptedPatterns,
		}}}
	}
	var wrong []PatternError
	for _, list := range []struct {
		name, accepted string
		patterns       []string
		check          func(string) error
	}{
		{"inclusionPrefixes", acceptedText, m.Prefixes, checkText},
		{"inclusionSuffixes", acceptedText, m.Suffixes, checkText},
		{"inclusionRegexps", acceptedRegexp, m.Regexps, checkRegexp},
	} {
		for i, pattern := range list.patterns {
			if err := list.check(pattern); err != nil {
				wrong = append(wrong, PatternError{fmt.Sprintf("%s[%d]", list.name, i), &interception.ValueError{
					Value: pattern, Reason: err.Error(), Accepted: list.accepted,
				}})
			}
		}
	}
	return wrong
}

// checkText allows what statistics' names are made of, and regular expressions for
// them.
func checkText(text string) error {
	switch {
	case text == "":
		return errors.New("it is empty")
	case len(text) > longestPattern:
		return fmt.Errorf("it is longer than %d bytes", longestPattern)
	case strings.IndexFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0:
		return errors.New("it has another character")
	}
	return nil
}

// checkRegexp parses a regular expression as Go does, which has RE2's syntax. Envoy
// reads it as Latin-1, and its RE2 has not all of Go's classes: escapes that both
// read alike are enough for names of statistics.
func checkRegexp(text string) error {
	if err := checkText(text); err != nil {
		return err
	}
	for rest := text; ; {
		_, escape, found := strings.Cut(rest, `\`)
		if !found {
			break
		}
		const letters = "dDwWsSbB"
		if escape == "" || isWord(escape[0]) && !strings.Contains(letters, escape[:1]) {
			return fmt.Errorf("\\%.1s is not read", escape)
		}
		rest = escape[1:]
	}
	_, err := syntax.Parse(text, syntax.Perl)
	return err
}

func isWord(b byte) bool {
	return '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || b == '_'
}
