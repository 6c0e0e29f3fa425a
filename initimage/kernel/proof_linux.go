package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// proofTable is the routing table that holds the proof: a default route for each
// family, whose metric is the fingerprint of what the probes went through. No rule
// looks the table up, so no packet meets it. It ends with the namespace, and needs
// neither a file nor a process.
const proofTable = 1330133

// Proved reports whether the probes of an earlier run went through exactly what the
// namespace holds now, and all arrived.
func (h *Host) Proved(ctx context.Context, holds []ruleset.RuleSet) (bool, error) {
	for _, rs := range holds {
		routes, err := h.proofs(rs.Family)
		if err != nil || len(routes) != 1 {
			return false, err
		}
		wanted, err := h.fingerprint(ctx, rs)
		if err != nil || uint32(routes[0].Priority) != wanted {
			return false, err
		}
	}
	return len(holds) > 0, nil
}

// Prove sends the probes, and returns what they could not prove. If all arrive, it
// keeps the proof; if one is lost, it deletes that of an earlier run. The error is
// what report makes of that, or is ErrVerify.
func (h *Host) Prove(
	ctx context.Context, spec interception.Spec, want, holds []ruleset.RuleSet, report func(findings []string, err error) error,
) (unproved []string, err error) {
	probed, err := h.Probe(ctx, spec, want, holds)
	if err := report(probed.Findings, err); err != nil {
		for _, rs := range want {
			_, forgetting := h.ForgetProof(rs.Family)
			err = errors.Join(err, forgetting)
		}
		return nil, err
	}
	if len(probed.Unproved) == 0 {
		if err := h.rememberProof(ctx, holds); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrVerify, err)
		}
	}
	return probed.Unproved, nil
}

// rememberProof records that the probes arrived. It is the last step of a run: a
// run that is killed before it proves nothing to the next.
func (h *Host) rememberProof(ctx context.Context, holds []ruleset.RuleSet) error {
	for _, set := range holds {
		if _, err := h.ForgetProof(set.Family); err != nil {
			return err
		}
		fingerprint, err := h.fingerprint(ctx, set)
		if err != nil {
			return err
		}
		route := proofRoute(set.Family)
		route.Priority = int(fingerprint)
		if err := h.netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("keeping the proof of %s, in routing table %d: %w", set.Family, proofTable, err)
		}
	}
	return nil
}

// ForgetProof deletes the proof of a family, and reports whether there was one.
// AddRouting calls it before it cuts a family off, so that no change begins with a
// proof.
func (h *Host) ForgetProof(family ruleset.Family) (there bool, err error) {
	route := proofRoute(family)
	route.Type = unix.RTN_UNSPEC // without one, and without a metric, the first of any
	for {
		err := h.netlink.RouteDel(route)
		if errors.Is(err, unix.ESRCH) {
			return there, nil
		}
		if err != nil {
			return there, fmt.Errorf("forgetting the proof of %s, in routing table %d: %w", family, proofTable, err)
		}
		there = true
	}
}

func proofRoute(family ruleset.Family) *netlink.Route {
	return &netlink.Route{
		Dst: anywhere(family), Table: proofTable, Type: unix.RTN_BLACKHOLE, Protocol: routingProtocol,
	}
}

func (h *Host) proofs(family ruleset.Family) ([]netlink.Route, error) {
	filter := &netlink.Route{Table: proofTable, Protocol: routingProtocol}
	routes, err := h.netlink.RouteListFiltered(netlinkFamily(family), filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return nil, fmt.Errorf("looking for the proof of %s, in routing table %d: %w", family, proofTable, err)
	}
	return routes, nil
}

// fingerprint returns a hash of everything that a probe of a family goes through:
// all rules, ours and others', our routing and what comes before it, and nf_tables'
// generation, which every change by anyone raises.
func (h *Host) fingerprint(ctx context.Context, rs ruleset.RuleSet) (uint32, error) {
	generation, err := nftGeneration()
	if err != nil {
		return 0, err
	}
	others, err := h.Others(ctx, rs.Family)
	if err != nil {
		return 0, fmt.Errorf("reading the %s rules of others: %w", rs.Family, err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d\n%s\n%s", h.backend.name, generation, rs, others))
	// The kernel would replace a metric of 0.
	return max(1, binary.NativeEndian.Uint32(sum[:])), nil
}

// nftGeneration returns the number of changes that nf_tables has seen in this
// namespace; 0 if the kernel has no nf_tables.
func nftGeneration() (uint32, error) {
	answers, err := askNFTables(unix.NFT_MSG_GETGEN, 0, nftables.TableFamilyUnspecified, func(*batch) {})
	if unknownToKernel(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("asking nf_tables for its generation: %w", err)
	}
	if len(answers) != 1 {
		return 0, fmt.Errorf("asking nf_tables for its generation: %d answers", len(answers))
	}
	return nft.BigEndian(answers[0].attributes()[unix.NFTA_GEN_ID]), nil
}
