package interception

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// codec reads and prints the values of one type of flag.
type codec[T any] struct {
	parse  func(string) (T, error)
	format func(T) string
}

var (
	portCodec = codec[uint16]{ParsePort, func(p uint16) string { return strconv.Itoa(int(p)) }}
	// optionalPortCodec reads an empty text as 0, which means no port.
	optionalPortCodec = codec[uint16]{
		func(text string) (uint16, error) {
			if text == "" {
				return 0, nil
			}
			port, err := ParsePort(text)
			return port, accepting(err, acceptedPort+", or an empty value for none")
		},
		func(p uint16) string {
			if p == 0 {
				return ""
			}
			return portCodec.format(p)
		},
	}
	portRangesCodec = codec[PortRanges]{ParsePortRanges, PortRanges.String}
	portsCodec      = codec[Ports]{ParsePorts, Ports.String}
	prefixesCodec   = codec[Prefixes]{ParsePrefixes, Prefixes.String}
	cidrsCodec      = codec[CIDRs]{ParseCIDRs, CIDRs.String}
	idsCodec        = codec[[]uint32]{ParseIDs, formatIDs}
	groupsCodec     = codec[Groups]{ParseGroups, Groups.String}
	loopbackCodec   = codec[netip.Prefix]{ParseLoopbackCIDR, netip.Prefix.String}
	addressesCodec  = codec[Prefixes]{ParseAddresses, formatAddresses}
	interfacesCodec = codec[[]string]{ParseInterfaces, func(names []string) string { return strings.Join(names, ",") }}
	boolCodec       = codec[bool]{parseBool, strconv.FormatBool}
	backendCodec    = oneOf(Backends...)
	ipv6Codec       = oneOf(IPv6Auto, IPv6On, IPv6Off)
	modeCodec       = oneOf(ModeRedirect, ModeTProxy)
	netnsCodec      = parseAbsolutePath("/proc/1234/ns/net")
	shareCodec      = parseAbsolutePath("/shunt")
	textCodec       = codec[string]{func(text string) (string, error) { return text, nil }, func(text string) string { return text }}
	systemCodec     = oneOf(SystemRedirect, SystemTProxy, SystemAmbient, SystemLegacy)
	markCodec       = codec[uint32]{parseMark, formatUint32}
	routeTableCodec = codec[uint32]{parseRouteTable, formatUint32}
)

// ParseMode reads REDIRECT or TPROXY, in capitals as Istio documents them.
func ParseMode(text string) (Mode, error) { return modeCodec.parse(text) }

// oneOf reads exactly one of the given words. Case matters: a word that nearly fits
// must not turn into another.
func oneOf[T ~string](values ...T) codec[T] {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = string(v)
	}
	parse := func(text string) (T, error) {
		if !slices.Contains(values, T(text)) {
			return "", &ValueError{Value: text, Accepted: strings.Join(words, ", ")}
		}
		return T(text), nil
	}
	return codec[T]{parse, func(v T) string { return string(v) }}
}

func parseBool(text string) (bool, error) {
	switch text {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, &ValueError{Value: text, Accepted: "true, false"}
}

func formatUint32(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// maxMark leaves room for Mark+1 in the 32 bits of a packet mark.
const maxMark = 1<<32 - 2

// parseMark reads a packet mark in decimal or, as iptables prints it, in
// hexadecimal. Unmarked packets have mark 0, so it is rejected.
func parseMark(text string) (uint32, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(text, "0x"), markBase(text), 32)
	if err != nil || n == 0 || n > maxMark || strings.ContainsAny(text, "+_-") {
		return 0, &ValueError{Value: text, Accepted: fmt.Sprintf("a packet mark from 1 to %d, decimal or 0x…", uint32(maxMark))}
	}
	return uint32(n), nil
}

func markBase(text string) int {
	if strings.HasPrefix(text, "0x") {
		return 16
	}
	return 10
}

// Routing tables that the kernel reserves (linux/rtnetlink.h).
const (
	routeTableDefault = 253
	routeTableLocal   = 255
)

func parseRouteTable(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	reserved := n == 0 || n >= routeTableDefault && n <= routeTableLocal
	if err != nil || reserved || !isDecimal(text) {
		return 0, &ValueError{Value: text, Accepted: "a routing table from 1 to 4294967295 other than 253, 254 and 255"}
	}
	return uint32(n), nil
}

// parseAbsolutePath reads an absolute path; an empty text means none.
func parseAbsolutePath(example string) codec[string] {
	parse := func(text string) (string, error) {
		if text != "" && !strings.HasPrefix(text, "/") {
			return "", &ValueError{Value: text, Accepted: "an absolute path such as " + example}
		}
		return text, nil
	}
	return codec[string]{parse, func(path string) string { return path }}
}
