package config

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/strict"
)

// ReadFile returns the content of a file beside that of the configuration: in the
// same folder or, for a ConfigMap, under another of its keys.
type ReadFile func(name string) ([]byte, error)

// filePrefix begins a value that is in a file.
const filePrefix = "file:"

// maxExcludedText is the most bytes of ExcludeOutboundIPRanges, merged. They are
// arguments of shunt-init in every pod, so an API server's etcd holds them once for
// each pod. With 10,000 pods this is 640 MiB of the 2 GiB that etcd has by default,
// and the largest list of one pod (10,000 ranges) would be 1.7 GB.
const maxExcludedText = 64 << 10

const acceptedRanges = "IPv4 and IPv6 addresses and CIDR ranges separated by commas, or file:NAME with the name of a file " +
	"beside the configuration's, which has them line by line"

var excludedPath = field.NewPath("excludeOutboundIPRanges")

// ReadFiles puts the content of a file in the place of its name. read is nil where
// no file is beside the configuration.
func (c *Config) ReadFiles(read ReadFile) field.ErrorList {
	name, isFile := strings.CutPrefix(c.ExcludeOutboundIPRanges, filePrefix)
	if !isFile {
		return nil
	}
	invalid := func(detail string) field.ErrorList {
		return field.ErrorList{field.Invalid(excludedPath, strict.Shorten(c.ExcludeOutboundIPRanges), detail)}
	}
	if len(validation.IsConfigMapKey(name)) > 0 {
		return invalid("accepted: " + acceptedRanges)
	}
	if read == nil {
		return invalid("the configuration is in no file here, so that no other is beside it; accepted: the same in a file or a ConfigMap")
	}
	text, err := read(name)
	if err != nil {
		return invalid(err.Error())
	}
	ranges, err := interception.ParsePrefixLines(string(text))
	if err != nil {
		return invalid(strict.Shorten(err.Error()))
	}
	if len(ranges) == 0 { // such as the file of a download that failed
		return invalid("no range is in the file; accepted: at least one, or no such setting")
	}
	c.ExcludeOutboundIPRanges = ranges.Merged().String()
	return nil
}

// ExcludedRanges returns the ranges of ExcludeOutboundIPRanges, merged. It returns
// nil for a configuration that is not valid.
func (c Config) ExcludedRanges() interception.Prefixes {
	ranges, err := interception.ParsePrefixes(c.ExcludeOutboundIPRanges)
	if err != nil {
		return nil
	}
	return ranges.Merged()
}

func checkExcluded(text string) field.ErrorList {
	if errs := checkParsed(excludedPath.String(), text, interception.ParsePrefixes); len(errs) > 0 {
		errs[0].BadValue = strict.Shorten(text)
		return errs
	}
	ranges := Config{ExcludeOutboundIPRanges: text}.ExcludedRanges()
	if size := len(ranges.String()); size > maxExcludedText {
		return field.ErrorList{field.Invalid(excludedPath, strict.Shorten(text), fmt.Sprintf(
			"%d ranges, merged, are %d bytes in every pod; accepted: %d bytes, some %d ranges of IPv4",
			len(ranges), size, maxExcludedText, maxExcludedText/len("100.100.100.0/24,")))}
	}
	return nil
}
