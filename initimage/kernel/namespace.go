package kernel

import (
	"context"
	"errors"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Namespace is a network namespace whose backend and families are settled. It
// is what Apply needs, and no more.
type Namespace interface {
	// Save returns all netfilter rules of a family as iptables-save prints
	// them. It changes nothing.
	Save(ctx context.Context, family ruleset.Family) (string, error)
	// Restore runs a transaction, table by table; an error may leave the
	// first tables changed.
	Restore(ctx context.Context, tx Transaction) error
	// Routing returns the addresses, rules and routes that AddRouting put, and
	// those of others that come before them.
	Routing(family ruleset.Family) (ruleset.Routing, error)
	// AddRouting cuts the family off where that is asked for, and puts
	// addresses on lo, routes and policy rules, in this order.
	AddRouting(family ruleset.Family, add ruleset.Routing) error
	// RemoveRouting takes away what AddRouting put.
	RemoveRouting(family ruleset.Family, remove ruleset.Routing) error
	// DeleteTables deletes the empty tables that Shunt made, where the backend
	// can.
	DeleteTables(ctx context.Context, family ruleset.Family) error
}

var (
	// ErrPreflight marks errors that were found before anything was touched:
	// this kernel, namespace or image cannot take the rules.
	ErrPreflight = errors.New("preflight")
	// ErrApply marks errors of a change that was begun; it has been undone,
	// or the error says that it could not be.
	ErrApply = errors.New("apply")
	// ErrVerify marks what verification found to be other than it should be.
	ErrVerify = errors.New("verify")
)
