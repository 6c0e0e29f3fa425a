package interception

// Backend names the kernel interface that iptables commands talk to.
type Backend string

// The values of Backend.
const (
	BackendAuto   Backend = "auto"   // the one that holds rules already, or else nft
	BackendNFT    Backend = "nft"    // iptables over nf_tables
	BackendLegacy Backend = "legacy" // iptables over ip_tables
)

// IPv6 says whether the IPv6 traffic of a namespace is intercepted.
type IPv6 string

// The values of IPv6.
const (
	IPv6Auto IPv6 = "auto" // wherever the namespace has an IPv6 address
	IPv6On   IPv6 = "on"   // always; a kernel without it is an error
	IPv6Off  IPv6 = "off"  // never: IPv6 connections bypass the proxy
)

// Options say how shunt-init works, where a Spec says what it builds.
type Options struct {
	Backend Backend
	IPv6    IPv6
	DryRun  bool // print the rules and change nothing
}

// DefaultOptions is what shunt-init does when no flag says otherwise.
func DefaultOptions() Options { return Options{Backend: BackendAuto, IPv6: IPv6Auto} }
