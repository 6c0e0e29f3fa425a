package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// emulated are the extensions that iptables-nft translates into expressions of
// nf_tables, so that the kernel need not have them.
var emulated = []string{"tcp", "udp", "mark", "comment"}

// Require asks the kernel for every match and target that the rule sets use, and
// names those that it lacks. If a kernel does not understand the question, writing
// the rules will tell. Its errors are ErrPreflight.
func (h *Host) Require(want []ruleset.RuleSet) error {
	var lacking []string
	for _, set := range want {
		for _, e := range set.Extensions() {
			if h.backend.name == interception.BackendNFT && slices.Contains(emulated, e.Name) {
				continue
			}
			missing, err := lacksExtension(set.Family, e)
			if err != nil {
				return fmt.Errorf("%w: asking the kernel for the %s: %w", ErrPreflight, e, err)
			}
			if missing {
				lacking = append(lacking, fmt.Sprintf("the %s for %s", e, set.Family))
			}
		}
	}
	if len(lacking) > 0 {
		return fmt.Errorf("%w: this kernel lacks %s", ErrPreflight, strings.Join(lacking, ", "))
	}
	return nil
}

// Values of linux/netfilter/nf_tables_compat.h.
const (
	compatGet    = 0 // NFNL_MSG_COMPAT_GET
	compatMatch  = 0
	compatTarget = 1
)

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
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP): // nft_compat is not loaded, so nobody can answer
		return false, nil
	}
	return false, err
}
