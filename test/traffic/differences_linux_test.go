package traffic

import (
	"slices"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// difference is a difference that the proxy makes and that docs/proxy.md describes.
type difference struct {
	trial  string
	mode   interception.Mode    // "" for both
	where  func(direction) bool // nil for everywhere
	direct string               // lines seen without the proxy
	proxy  string               // lines seen with it instead
	chance bool                 // it occurs only sometimes, depending on how busy the machine is
	reason string
}

func inbound(d direction) bool { return d.inbound }

// differences are all known differences. One that no longer occurs fails the suite, unless it
// occurs only sometimes.
var differences = []difference{
	{
		trial:  refused,
		direct: "client connects: ECONNREFUSED", proxy: "client connects, reads all: 0, EOF",
		reason: "the proxy has taken the connection before it can know that the server does not",
	},
	{
		trial: "the server resets at once", chance: true,
		direct: "client reads all: 0, ECONNRESET", proxy: "client reads all: 0, EOF",
		reason: "the proxy, which learns of connection and reset at once, takes it for one that failed",
	},
	{
		trial: "the client writes and resets at once", chance: true,
		direct: "server reads all: 5, ECONNRESET", proxy: "server reads all: 0, ECONNRESET",
		reason: "a reset overtakes what the proxy has not sent on yet",
	},
	{
		trial: "the server writes and resets at once", chance: true,
		direct: "client reads all: 7, ECONNRESET", proxy: "client reads all: 0, ECONNRESET",
		reason: "a reset overtakes what the proxy has not sent on yet",
	},
	{
		trial: "the server answers, and closes at once with bytes unread", chance: true,
		direct: "client reads all: 7, ECONNRESET", proxy: "client reads all: 0, ECONNRESET",
		reason: "a reset overtakes what the proxy has not sent on yet",
	},
	{
		trial: "both half-close, the client has much under way", chance: true,
		direct: "server gets: all of it", proxy: "server gets: less",
		reason: "when both ends have half-closed, the client first, the proxy drops what the server has not taken from it yet",
	},
	{
		trial: "FTP, active", mode: interception.ModeRedirect, where: inbound,
		direct: text(ftpWant(5)), proxy: "client: 0 of 5 files uploaded\nserver: 0 of 5 files\nclient: read nothing back",
		reason: "the server takes the client for 127.0.0.6, and is told to connect to another address, which servers refuse",
	},
}

func (known difference) concerns(trial string, mode interception.Mode, d direction) bool {
	return known.trial == trial && (known.mode == "" || known.mode == mode) && (known.where == nil || known.where(d))
}

// expected returns what both ends should see with the proxy, from what they see without it.
func (known difference) expected(t *testing.T, without []string) []string {
	t.Helper()
	if !strings.Contains(text(without), known.direct) {
		t.Errorf("a documented difference is of %q, which nobody sees without a proxy", known.direct)
	}
	return strings.Split(strings.Replace(text(without), known.direct, known.proxy, 1), "\n")
}

// checkDifferences checks that every documented difference belongs to a trial.
func checkDifferences(t *testing.T, all []trial) {
	for _, known := range differences {
		if !slices.ContainsFunc(all, func(tr trial) bool { return tr.name == known.trial }) {
			t.Errorf("a documented difference is of %q, which is no trial", known.trial)
		}
	}
}
