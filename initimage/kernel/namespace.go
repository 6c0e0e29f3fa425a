package kernel

import (
	"context"
	"errors"
	"fmt"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Namespace is a network namespace whose backend and families are settled. It has
// the methods that Apply needs, and no others. A backend either has tables of
// iptables, which Restore and DeleteTables change one by one, or a native table,
// which Replace makes for all families at once.
type Namespace interface {
	fmt.Stringer // the backend, for messages
	// Rules returns all netfilter rules of a family that are where the backend keeps
	// Shunt's: those of others in iptables' tables too. It changes nothing.
	Rules(ctx context.Context, family ruleset.Family) (ruleset.RuleSet, error)
	// Native reports whether the backend has a native table.
	Native() bool
	// Replace makes the native tables of some families what is given, all at once or
	// not at all. A family without rules has no table.
	Replace(want []ruleset.RuleSet) error
	// Restore runs a transaction, table by table. After an error the first tables
	// may be changed.
	Restore(ctx context.Context, tx Transaction) error
	// DeleteTables deletes the empty tables that Shunt made, if the backend can.
	DeleteTables(ctx context.Context, family ruleset.Family) error
	// Formers returns the same namespace by the other backends that may hold rules
	// of Shunt, from before its backend was another.
	Formers() []Namespace
	// Routing returns the addresses, rules, routes and settings that AddRouting added, and
	// those of others that come before them.
	Routing(family ruleset.Family) (ruleset.Routing, error)
	// AddRouting cuts the family off if that is asked for, then adds addresses on
	// lo, routes, policy rules and settings, in this order.
	AddRouting(family ruleset.Family, add ruleset.Routing) error
	// RemoveRouting removes what AddRouting added.
	RemoveRouting(family ruleset.Family, remove ruleset.Routing) error
}

var (
	// ErrPreflight marks errors that were found before anything was touched: this
	// kernel, namespace or image cannot take the rules.
	ErrPreflight = errors.New("preflight")
	// ErrApply marks errors of a change that had begun. It has been undone, or the
	// error says that it could not be.
	ErrApply = errors.New("apply")
	// ErrVerify marks findings of the verification.
	ErrVerify = errors.New("verify")
)
