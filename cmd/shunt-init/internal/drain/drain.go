// Package drain lets what is under way through a proxy come to its end before
// the proxy is told to stop.
//
//	Envoy's admin interface ─ POST /healthcheck/fail: be left alone from now on
//	                        └ GET /stats, again and again ─► what is under way ─► nothing any more, or the time is over
//
// An Envoy that was told to fail its health check says so with each response
// (Connection: close, GOAWAY), so that its clients go elsewhere or come by a
// new connection, which it still takes: nobody is refused.
package drain

import (
	"context"
	"time"
)

// interval is how long to wait between two looks.
const interval = 200 * time.Millisecond

// enough looks in a row have to find nothing under way: between the parts of
// one look, a request can come to an end here and begin there.
const enough = 2

// Run tells the Envoy with this admin interface to drain, and returns once
// nothing is under way through it, the time is over, or the context has ended;
// and with what is under way then. Its errors are ErrAdmin.
func Run(ctx context.Context, address string, most time.Duration) (UnderWay, error) {
	over := time.NewTimer(most)
	defer over.Stop()
	envoy := admin{address}
	if _, err := envoy.ask(ctx, "POST", "/healthcheck/fail"); err != nil {
		return UnderWay{}, unlessEnded(ctx, err)
	}
	listeners, err := envoy.ask(ctx, "GET", "/listeners")
	if err != nil {
		return UnderWay{}, unlessEnded(ctx, err)
	}
	looks := time.NewTicker(interval)
	defer looks.Stop()
	for idle := 0; ; {
		stats, err := envoy.ask(ctx, "GET", "/stats?filter="+statsFilter)
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
		if idle == enough {
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

// unlessEnded is the error of a call that nobody called off.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}
