// Package drain takes the address of Envoy's admin interface in, and returns once
// the proxy's requests and connections have ended, so that the proxy can be
// stopped.
//
//	Envoy's admin interface ─ POST /healthcheck/fail: be left alone from now on
//	                        └ GET /stats, again and again ─► requests and connections ─► none any more, or the time is over
//
// An Envoy that was told to fail its health check says so with each response
// (Connection: close, GOAWAY). Its clients go elsewhere or open a new connection,
// which it still accepts: nobody is rejected.
package drain

import (
	"context"
	"time"
)

// interval is the pause between two looks.
const interval = 200 * time.Millisecond

// quietLooks is how many looks in a row have to find nothing: during one look, a
// request can end where it has not looked yet and begin where it has.
const quietLooks = 2

// Run makes the Envoy with this admin interface drain. It returns once no requests
// or connections are left, the time is over, or the context has ended, with what is
// left then. Its errors are ErrAdmin.
func Run(ctx context.Context, address string, most time.Duration) (UnderWay, error) {
	over := time.NewTimer(most)
	defer over.Stop()
	envoy := admin{address}
	if _, err := envoy.request(ctx, "POST", "/healthcheck/fail"); err != nil {
		return UnderWay{}, unlessEnded(ctx, err)
	}
	listeners, err := envoy.request(ctx, "GET", "/listeners")
	if err != nil {
		return UnderWay{}, unlessEnded(ctx, err)
	}
	looks := time.NewTicker(interval)
	defer looks.Stop()
	for idle := 0; ; {
		stats, err := envoy.request(ctx, "GET", "/stats?filter="+statsFilter)
		if err != nil {
			return UnderWay{}, unlessEnded(ctx, err)
		}
		left, err := count(listeners, stats)
		if err != nil {
			return UnderWay{}, envoy.failed(err)
		}
		idle++
		if left.Any() {
			idle = 0
		}
		if idle == quietLooks {
			return left, nil
		}
		select {
		case <-looks.C:
		case <-over.C:
			return left, nil
		case <-ctx.Done():
			return left, nil
		}
	}
}

// unlessEnded returns the error of a call, unless the context ended it.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}
