package kernel

import (
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ReceiptState is how far the node's agent got in a network namespace.
type ReceiptState string

// The values of ReceiptState.
const (
	ReceiptBegun  ReceiptState = "begun"  // the rules may be there, in part or whole
	ReceiptDone   ReceiptState = "done"   // they are there, were read back, and probes went through them
	ReceiptFailed ReceiptState = "failed" // Detail says why
)

// Receipt is what the node's agent leaves in a network namespace about its rules
// there. A process without privileges, the gate, can read it, but write it cannot:
// it is the alias of the interface lo, which takes NET_ADMIN in the namespace. So
// it is worth as much as the rules themselves, needs no file and no connection, and
// ends with the namespace.
type Receipt struct {
	State  ReceiptState
	Digest string // of the arguments that the agent was given
	Detail string
}

const (
	receiptPrefix = "shunt-node"
	// maxAlias is the longest alias of an interface (IFALIASZ of linux/if.h, with
	// its end).
	maxAlias = 255
)

// String returns the receipt as it is kept, without what is too long of the detail.
func (r Receipt) String() string {
	text := strings.TrimSpace(strings.Join([]string{receiptPrefix, string(r.State), r.Digest, r.Detail}, " "))
	return strings.ToValidUTF8(text[:min(len(text), maxAlias)], "")
}

// parseReceipt reads what String returns. ok is false for another text, such as
// none.
func parseReceipt(text string) (receipt Receipt, ok bool) {
	words := strings.SplitN(text, " ", 4)
	if len(words) < 3 || words[0] != receiptPrefix {
		return Receipt{}, false
	}
	receipt = Receipt{State: ReceiptState(words[1]), Digest: words[2]}
	if len(words) == 4 {
		receipt.Detail = words[3]
	}
	return receipt, true
}

// LeaveReceipt leaves a receipt in the network namespace of this thread, in place of
// an earlier one.
func LeaveReceipt(receipt Receipt) error {
	return withLoopback(func(handle *netlink.Handle, lo netlink.Link) error {
		return handle.LinkSetAlias(lo, receipt.String())
	})
}

// ReadReceipt returns the receipt in the network namespace of this thread. ok is
// false if there is none.
func ReadReceipt() (receipt Receipt, ok bool, err error) {
	err = withLoopback(func(_ *netlink.Handle, lo netlink.Link) error {
		receipt, ok = parseReceipt(lo.Attrs().Alias)
		return nil
	})
	return receipt, ok, err
}

func withLoopback(do func(*netlink.Handle, netlink.Link) error) error {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("%w: opening netlink: %w", ErrPreflight, err)
	}
	defer handle.Close()
	lo, err := handle.LinkByIndex(loopbackIndex)
	if err == nil {
		err = do(handle, lo)
	}
	if err != nil {
		return fmt.Errorf("%w: the alias of lo, where the agent's receipt is kept: %w", ErrPreflight, err)
	}
	return nil
}
