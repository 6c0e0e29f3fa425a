package kernel

import (
	"context"
	"errors"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Namespace is a network namespace whose backend and families are settled. It has
// the methods that Apply needs, and no others.
type Namespace interface {
	// Save returns all netfilter rules of a family as iptables-save prints them. It
	// changes nothing.
	Save(ctx context.Context, family ruleset.Family) (string, error)
	// Restore runs a transaction, table by table. After an error the first tables
	// may be changed.
	Restore(ctx context.Context, tx Transaction) error
	// Routing returns the addresses, rules and routes that AddRouting added, and
	// those of others that come before them.
	Routing(family ruleset.Family) (ruleset.Routing, error)
	// AddRouting cuts the family off if that is asked for, then adds addresses on
	// lo, routes and policy rules, in this order.
	AddRouting(family ruleset.Family, add ruleset.Routing) error
	// RemoveRouting removes what AddRouting added.
	RemoveRouting(family ruleset.Family, remove ruleset.Routing) error
	// DeleteTables deletes the empty tables that Shunt made, if the backend can.
	DeleteTables(ctx context.Context, family ruleset.Family) error
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
