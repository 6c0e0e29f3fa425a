package interception

// Backend is where the rules are kept, and who writes them there.
type Backend string

// The values of Backend.
const (
	BackendAuto     Backend = "auto"     // the one that holds rules already, or else the first that works here
	BackendNFT      Backend = "nft"      // iptables over nf_tables
	BackendNFTables Backend = "nftables" // a native table of nf_tables, without iptables
	BackendLegacy   Backend = "legacy"   // iptables over ip_tables
)

// Backends are the values of Backend.
var Backends = []Backend{BackendAuto, BackendNFT, BackendNFTables, BackendLegacy}

// IPv6 is whether the IPv6 traffic of a namespace is intercepted.
type IPv6 string

// The values of IPv6.
const (
	IPv6Auto IPv6 = "auto" // if the namespace has an IPv6 address
	IPv6On   IPv6 = "on"   // always; an error if the namespace has none
	IPv6Off  IPv6 = "off"  // never: IPv6 connections bypass the proxy
)

// Action is what shunt-init does with the rules of a Spec.
type Action string

// The values of Action.
const (
	ActionApply  Action = "apply"   // install them
	ActionDryRun Action = "dry-run" // print them and change nothing
	ActionVerify Action = "verify"  // compare the namespace with them and probe it; change nothing
	ActionRemove Action = "remove"  // delete all rules and routing of Shunt
)

// Options state how shunt-init works; a Spec states what it builds.
type Options struct {
	Backend Backend
	IPv6    IPv6
	NetNS   string // path of the network namespace; "" for that of the process
	Share   string // folder for what the proxy needs from shunt-init; "" for none
	Envoy   string // settings of the Envoy whose bootstrap is left in the folder, as package envoy reads them; "" for none

	DryRun     bool // print the rules and change nothing
	Verify     bool // compare and probe; change nothing
	Remove     bool // delete Shunt's rules and routing
	SkipVerify bool // do not verify after applying
	Prove      bool // refuse what is not proved of every connection
}

// Action returns what the options ask for. Validated options ask for one thing.
func (o Options) Action() Action {
	switch {
	case o.DryRun:
		return ActionDryRun
	case o.Verify:
		return ActionVerify
	case o.Remove:
		return ActionRemove
	default:
		return ActionApply
	}
}

// DefaultOptions returns the options of a run without flags.
func DefaultOptions() Options { return Options{Backend: BackendAuto, IPv6: IPv6Auto} }

// Validate checks that no two options contradict each other. It returns a
// *FlagError for the first contradiction.
func (o Options) Validate() error {
	actions := 0
	for _, asked := range []bool{o.DryRun, o.Verify, o.Remove} {
		if asked {
			actions++
		}
	}
	if actions > 1 {
		return flagErrorf(flagDryRun, "given with another of --%s, --%s and --%s; accepted: one of them",
			flagDryRun, flagVerify, flagRemove)
	}
	if o.SkipVerify && o.Action() != ActionApply {
		return flagErrorf(flagSkipVerify, "given with --%s; accepted: only when rules are applied", o.Action())
	}
	if o.Prove && o.Action() != ActionApply && o.Action() != ActionVerify {
		return flagErrorf(flagProve, "given with --%s; accepted: when rules are applied, or with --%s", o.Action(), flagVerify)
	}
	if o.Share != "" && (o.Verify || o.Remove) {
		return flagErrorf(flagShare, "given with --%s; accepted: only when rules are applied or printed", o.Action())
	}
	if o.Envoy != "" && o.Share == "" {
		return flagErrorf(flagEnvoy, "given without --%s; accepted: with the folder to leave Envoy's bootstrap in", flagShare)
	}
	return nil
}
