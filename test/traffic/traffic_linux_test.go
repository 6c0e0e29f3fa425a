package traffic

import (
	"errors"
	"io"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// TestTraffic runs every trial directly and through the proxy, in both modes.
func TestTraffic(t *testing.T) {
	all := map[interception.Mode]*network{}
	for _, mode := range networks {
		all[mode] = newNetwork(t, mode)
	}
	trials := slices.Concat(
		lineTrials(), []trial{serverFirstTrial()}, endingTrials(), byteTrials(), []trial{transferTrial()}, halfClosedTrials(),
		truncatedTrials(), programTrials(), ftpTrials(), []trial{postgresTrial(), h2specTrial()},
	)
	checkDifferences(t, trials)
	compare(t, all, trials)
	for _, mode := range modes {
		t.Run("in "+string(mode)+" nothing waited for a client to speak", func(t *testing.T) {
			if waited := all[mode].counter(t, "downstream_pre_cx_timeout"); waited > 0 {
				t.Errorf("the proxy looked at connections, and waited in vain for the first bytes of %d", waited)
			}
		})
	}
}

// idle is how many connections are open when the proxy ends.
const idle = 10

// TestProxyEnds stops the proxy while connections are open. Both ends must notice at once. That
// they cannot tell it from the end of the other side is a documented difference: Envoy closes its
// connections, and cannot be configured to reset them.
func TestProxyEnds(t *testing.T) {
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			n := newNetwork(t, mode)
			var conns []*net.TCPConn
			for _, d := range directions {
				w := &way{direction: d, network: n}
				listener := w.listen(t, bytesPort)
				for range idle {
					client, err := w.dial(t.Context(), bytesPort)
					if err != nil {
						t.Fatal(err)
					}
					server, err := listener.AcceptTCP()
					if err != nil {
						t.Fatal(err)
					}
					conns = append(conns, client, server)
				}
			}
			if err := n.Proxy.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			seen := map[string]int{}
			for _, conn := range conns {
				_ = conn.SetDeadline(time.Now().Add(answerTime))
				_, err := conn.Read(make([]byte, 1))
				switch {
				case errors.Is(err, io.EOF):
					seen["EOF"]++
				default:
					seen[errno(err)]++
				}
				_ = conn.Close()
			}
			if seen["EOF"] != len(conns) {
				t.Errorf("of %d ends, the end of the proxy was seen as %v; documented is EOF for all", len(conns), seen)
			}
		})
	}
}
