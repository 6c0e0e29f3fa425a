package dump

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// sysctl reads the settings that decide about neighbours' packets to loopback, and
// whether sockets inherit marks.
func (s *scanner) sysctl(text string) error {
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		return &Error{s.file, s.number, fmt.Errorf("%q: a sysctl without a value; %s", clip(text), accepted)}
	}
	name = strings.TrimSpace(name)
	for _, family := range ruleset.Families {
		if slices.Contains(family.MarkSettings(), name) {
			s.marks[name] = strings.TrimSpace(value) == "1"
		}
	}
	name, isLocalnet := strings.CutSuffix(name, ".route_localnet")
	if link, is := strings.CutPrefix(name, "net.ipv4.conf."); is && isLocalnet {
		s.localnet[link] = strings.TrimSpace(value) == "1"
	}
	return nil
}
