package kernel

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// emulated are the extensions that iptables-nft translates into expressions of
// nf_tables, so that the kernel need not have them.
var emulated = []string{"tcp", "udp", "mark", "comment"}

// Require finds out whether the backend and the kernel can take the rule sets of a
// spec, and names what they lack. If no backend was asked for, Require goes on to
// one that can. It changes nothing. Its errors are ErrPreflight.
func (h *Host) Require(spec interception.Spec, want []ruleset.RuleSet) error {
	err := h.require(h.backend, spec, want, len(h.others) > 0)
	for _, other := range h.others {
		var lacking *lackingError
		if !errors.As(err, &lacking) {
			break
		}
		b, missing := findBackend(other)
		if missing == nil && b.requireCapability() == nil && h.require(b, spec, want, true) == nil {
			b.why = fmt.Sprintf("%s would need %s", h.backend, lacking)
			h.backend, err = b, nil
		}
	}
	if err != nil {
		err = h.require(h.backend, spec, want, false)
	}
	var lacking *lackingError
	if errors.As(err, &lacking) {
		for _, other := range h.able(spec, want) {
			err = fmt.Errorf("%w, or --backend %s", err, other)
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPreflight, err)
	}
	return nil
}

// able returns the other backends that can take the rule sets.
func (h *Host) able(spec interception.Spec, want []ruleset.RuleSet) []interception.Backend {
	if spec.NoConntrack {
		return nil // see interception: it is for one backend
	}
	var all []interception.Backend
	for _, name := range backends {
		b, err := findBackend(name)
		if name != h.backend.name && err == nil && b.requireCapability() == nil && h.require(b, spec, want, true) == nil {
			all = append(all, name)
		}
	}
	return all
}

// lackingError is what a kernel lacks for some rules.
type lackingError struct{ what []string }

func (e *lackingError) Error() string { return strings.Join(e.what, ", ") }

// shortLists are the most IP ranges for which auto prefers iptables, which has a rule
// for each. A new connection is compared with one after the other: 1,000 cost it
// 10 µs, and 10,000 cost it 130 µs (docs/benchmarks.md). And in a user namespace
// more may exceed what the kernel takes as one message.
const shortLists = 1_000

// require finds out whether a backend can take the rule sets. If the kernel cannot
// answer, that is an error if the caller has to be sure; otherwise writing the rules
// will tell. Nor does a backend of iptables get long lists then, if another can have
// them.
func (h *Host) require(b backend, spec interception.Spec, want []ruleset.RuleSet, sure bool) error {
	if b.native() {
		return h.requireNative(want)
	}
	ranges := len(spec.OutboundCIDRs.Prefixes) + len(spec.OutboundExcludeCIDRs)
	switch {
	case ranges > interception.MaxRanges:
		return fmt.Errorf("%w; accepted over iptables: %d ranges", rulesForRanges(ranges), interception.MaxRanges)
	case sure && ranges > shortLists:
		return rulesForRanges(ranges)
	}
	return h.requireExtensions(b, want, sure)
}

func rulesForRanges(count int) error {
	return &lackingError{[]string{fmt.Sprintf("%d rules for as many IP ranges", count)}}
}

// requireExtensions asks the kernel for the extensions of iptables that rule sets
// need.
func (h *Host) requireExtensions(b backend, want []ruleset.RuleSet, sure bool) error {
	lacks := h.lacks
	if lacks == nil {
		lacks = lacksExtension
	}
	var lacking []string
	for _, set := range want {
		for _, e := range set.Extensions() {
			if b.name == interception.BackendNFT && slices.Contains(emulated, e.Name) {
				continue
			}
			missing, err := lacks(set.Family, e)
			if errors.Is(err, errUnanswered) {
				if sure && b.name == interception.BackendNFT {
					return fmt.Errorf("this kernel lacks %w", &lackingError{[]string{"nft_compat"}})
				}
				continue
			}
			if err != nil {
				return fmt.Errorf("asking the kernel for the %s: %w", e, err)
			}
			if missing {
				lacking = append(lacking, fmt.Sprintf("the %s for %s", e, set.Family))
			}
		}
	}
	if len(lacking) > 0 {
		return fmt.Errorf("this kernel lacks %w", &lackingError{lacking})
	}
	return nil
}

// requireNative has the kernel try to make samples of the tables, unless it has made
// some before.
func (h *Host) requireNative(want []ruleset.RuleSet) error {
	if held, err := nativeContent(); err != nil || held == holdsOurs {
		return err
	}
	var tables []nft.Table
	for _, wanted := range want {
		table, err := nft.Compile(wanted)
		if err != nil {
			return err
		}
		tables = append(tables, sample(table))
	}
	transaction, err := replaceTables(nil, tables)
	if err != nil {
		return err
	}
	if h.try != nil {
		return explainLacking(h.try(transaction))
	}
	return explainLacking(transaction.try())
}

// sample returns a table that needs of a kernel all that the whole table does: its
// chains, one element of each set that a rule looks in, and the first of the rules
// that differ in values alone.
func sample(whole nft.Table) nft.Table {
	small, seen := nft.Table{Family: whole.Family}, map[any]bool{}
	for _, c := range whole.Chains {
		chain, before := nft.Chain{Name: c.Name, Hook: c.Hook}, len(seen)
		for _, r := range c.Rules {
			e := encoder{family: whole.Family}
			e.rule(r)
			for _, one := range e.exprs {
				seen[kindOf(one)] = true
			}
			if r.Set != nil {
				seen[r.Set.Ports == nil] = true
			}
			if len(seen) == before {
				continue
			}
			before = len(seen)
			chain.Rules = append(chain.Rules, r)
			if s := r.Set; s != nil && !hasSet(small, s.Name) {
				small.Sets = append(small.Sets, nft.Set{
					Name: s.Name, Source: s.Source, Prefixes: s.Prefixes[:min(1, len(s.Prefixes))], Ports: s.Ports[:min(1, len(s.Ports))],
				})
			}
		}
		small.Chains = append(small.Chains, chain)
	}
	return small
}

func hasSet(t nft.Table, name string) bool {
	return slices.ContainsFunc(t.Sets, func(s nft.Set) bool { return s.Name == name })
}

// kindOf returns what the kernel has to know for an expression, whatever its values.
func kindOf(e expr.Any) any {
	switch e := e.(type) {
	case *expr.Meta:
		return expr.Meta{Key: e.Key, SourceRegister: e.SourceRegister}
	case *expr.Ct:
		return expr.Ct{Key: e.Key, SourceRegister: e.SourceRegister}
	}
	return reflect.TypeOf(e)
}

// modules are the kernel's modules of what may be missing; %s is 4 or 6. Everything
// else is in nf_tables itself.
var modules = map[string]string{
	"chain": "nft_chain_nat", "elements": "nf_tables_set", "set": "nf_tables_set", "ct": "nft_ct", "redir": "nft_redir",
	"tproxy": "nft_tproxy", "fib": "nft_fib_ipv%s", "socket": "nft_socket", "reject": "nft_reject_ipv%s", "counter": "nft_counter",
}

// explainLacking names the modules whose lack errors of a transaction mean. The
// kernel says ENOENT for an expression or a type of chain that it does not know, and
// EOPNOTSUPP for a set.
func explainLacking(err error) error {
	failures := failuresOf(err)
	if unknownToKernel(err) && (len(failures) == 0 || failures[0].what == wholeBatch) {
		return fmt.Errorf("this kernel lacks %w", &lackingError{[]string{"nf_tables: modprobe nf_tables"}})
	}
	var lacking []string
	for _, failed := range failures {
		if failed.errno != unix.ENOENT && failed.errno != unix.EOPNOTSUPP {
			return err
		}
		kind, _, _ := strings.Cut(failed.what, " ")
		module, known := modules[cmp.Or(failed.expression, kind)]
		if failed.expression != "" && !known {
			module = "nft_" + failed.expression
		} else if !known {
			continue // it needs something that could not be made
		}
		if strings.Contains(module, "%s") {
			module = fmt.Sprintf(module, map[bool]string{true: "6", false: "4"}[strings.Contains(failed.what, ruleset.IPv6.String())])
		}
		sentence := fmt.Sprintf("%s: modprobe %s", module, module)
		if !slices.Contains(lacking, sentence) {
			lacking = append(lacking, sentence)
		}
	}
	if len(lacking) > 0 {
		return fmt.Errorf("this kernel lacks %w", &lackingError{lacking})
	}
	return err
}

// Values of linux/netfilter/nf_tables_compat.h.
const (
	compatGet    = 0 // NFNL_MSG_COMPAT_GET
	compatMatch  = 0
	compatTarget = 1
)

// errUnanswered means that a kernel has no nft_compat, also not as a module, so
// that nobody can answer.
var errUnanswered = errors.New("nobody can answer without nft_compat")

// lacksExtension asks the kernel as iptables-nft does before it uses an extension.
func lacksExtension(family ruleset.Family, e ruleset.Extension) (bool, error) {
	kind := uint32(compatMatch)
	if e.Target {
		kind = compatTarget
	}
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFT_COMPAT<<8|compatGet, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(netlinkFamily(family)), Version: nl.NFNETLINK_V0})
	req.AddData(nl.NewRtAttr(unix.NFTA_COMPAT_NAME, nl.ZeroTerminated(e.Name)))
	req.AddData(nl.NewRtAttr(unix.NFTA_COMPAT_REV, binary.BigEndian.AppendUint32(nil, 0)))
	req.AddData(nl.NewRtAttr(unix.NFTA_COMPAT_TYPE, binary.BigEndian.AppendUint32(nil, kind)))
	_, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return true, nil
	case err == nil, errors.Is(err, unix.EPROTONOSUPPORT): // it exists, perhaps only in later revisions
		return false, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return false, errUnanswered
	}
	return false, err
}
