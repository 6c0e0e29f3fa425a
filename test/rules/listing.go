package rules

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Listing is a reference listing of a system's rules, in testdata/listings.
type Listing struct {
	Name string // of its file, without the ending
	Args string // of shunt-init, for our rules of the same system
}

// Listings holds all of them.
var Listings = []Listing{
	{"redirect", "-m REDIRECT"},
	{"tproxy", "-m TPROXY"},
	{"dns", "-m REDIRECT --redirect-dns --capture-all-dns -o 15020"},
	{"ambient", "--system ambient"},
	{"legacy", "--system legacy"},
}

// Spec returns the spec of our rules for the listing's system.
func (l Listing) Spec() (interception.Spec, error) {
	spec, _, err := interception.ParseArgs(strings.Fields(l.Args))
	return spec, err
}

// Read reads the listing, which is for IPv4, from a folder, for either family.
func (l Listing) Read(dir string, family ruleset.Family) (ruleset.RuleSet, error) {
	data, err := os.ReadFile(filepath.Join(dir, l.Name+".rules"))
	if err != nil {
		return ruleset.RuleSet{}, fmt.Errorf("reading listing %s: %w", l.Name, err)
	}
	text := string(data)
	if family == ruleset.IPv6 {
		text = strings.NewReplacer("127.0.0.1/32", "::1/128", "127.0.0.6/32", "::6/128", "0.0.0.0", "::",
			"169.254.7.127/32", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128").Replace(text)
	}
	set, err := ruleset.Parse(family, text)
	if err != nil {
		return ruleset.RuleSet{}, fmt.Errorf("reading listing %s: %w", l.Name, err)
	}
	// A listing does not contain the routing that it needs.
	switch l.Name {
	case "tproxy":
		set.Routing = routedBack(0x539, 0xffffffff, 133)
	case "ambient":
		set.Routing = routedBack(0x111, 0xfff, 100)
	}
	return set, nil
}

func routedBack(mark, mask, table uint32) ruleset.Routing {
	return ruleset.Routing{
		Rules:  []ruleset.PolicyRule{{Mark: mark, Mask: mask, Table: table}},
		Routes: []ruleset.LocalRoute{{Table: table}},
	}
}
