package kernel

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	poddump "github.com/shunt-dev/shunt/initimage/dump"
)

// Bounds of a connection that is made to see which rules count it.
const (
	connectPatience = 5 * time.Second
	// hopPatience is for the connection that the proxy opens once it has this one.
	hopPatience = 500 * time.Millisecond
)

// DumpAround is Dump before and after a tcp connection from the namespace of this
// thread, by this process. It sends nothing on it. Its errors are ErrPreflight; that
// the connection fails is a result.
func DumpAround(ctx context.Context, out io.Writer, to netip.AddrPort) error {
	if err := Dump(ctx, out); err != nil {
		return err
	}
	result := poddump.Attempt{To: to}
	dialer := net.Dialer{Timeout: connectPatience}
	conn, err := dialer.DialContext(ctx, "tcp", to.String())
	if err == nil {
		if from, is := conn.LocalAddr().(*net.TCPAddr); is {
			result.From = from.AddrPort()
		}
		time.Sleep(hopPatience)
		_ = conn.Close()
	} else {
		result.Failure = err.Error()
	}
	if _, err := fmt.Fprintln(out, result); err != nil {
		return fmt.Errorf("%w: %w", ErrPreflight, err)
	}
	return Dump(ctx, out)
}
