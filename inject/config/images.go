package config

import (
	_ "crypto/sha256" // digests of images are read with it
	"slices"
	"strings"

	"github.com/distribution/reference"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/interception"
)

const (
	// AcceptedImage words what ParseImage takes.
	AcceptedImage   = "an image reference such as registry.example/team/envoy:v1"
	acceptedAllowed = "a registry, a repository in one or an image, with the registry's name: " +
		"registry.example, docker.io/envoyproxy, registry.example/envoy:v1"
)

// ParseImage reads an image reference and says all of it, so that what is
// compared with the configuration is what a node pulls, whichever registry it
// takes for names that have none.
func ParseImage(text string) (string, error) {
	named, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		return "", &interception.ValueError{Value: text, Accepted: AcceptedImage}
	}
	return named.String(), nil
}

// allowedImage is an entry of Config.AllowedProxyImages, which must be one of
// a registry, a repository or what is below it, and a single image.
type allowedImage struct {
	below string // a registry or repository
	image string // or one image, by tag or digest
}

// parseAllowedImage wants the registry's name: without one it would be for each
// node to say which registry is meant.
func parseAllowedImage(text string) (allowedImage, error) {
	wrong := &interception.ValueError{Value: text, Accepted: acceptedAllowed}
	registry, _, isImage := strings.Cut(text, "/")
	if !isImage {
		text += "/any" // a registry alone, with its port or without, is no reference
	}
	if registry != "localhost" && !strings.ContainsAny(registry, ".:") {
		return allowedImage{}, wrong
	}
	// Not by Docker's rules, which make docker.io/library/name of docker.io/name.
	parsed, err := reference.Parse(text)
	named, is := parsed.(reference.Named)
	switch {
	case err != nil, !is, reference.Domain(named) != registry:
		return allowedImage{}, wrong
	case !isImage:
		return allowedImage{below: registry}, nil
	case reference.IsNameOnly(named):
		return allowedImage{below: named.Name()}, nil
	default:
		return allowedImage{image: pulled(named)}, nil
	}
}

// pulled is what a node goes by: the digest, where there is one, whatever the
// tag beside it.
func pulled(named reference.Named) string {
	if digested, is := named.(reference.Digested); is {
		return named.Name() + "@" + digested.Digest().String()
	}
	return named.String()
}

// allows reports whether a reference that parseImage returned is covered.
func (a allowedImage) allows(image string) bool {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return false
	}
	if a.image != "" {
		return pulled(named) == a.image
	}
	return named.Name() == a.below || strings.HasPrefix(named.Name(), a.below+"/")
}

// checkAllowedImages is for a configuration.
func checkAllowedImages(path *field.Path, entries []string) field.ErrorList {
	var errs field.ErrorList
	for i, entry := range entries {
		if _, err := parseAllowedImage(entry); err != nil {
			errs = append(errs, field.Invalid(path.Index(i), entry, "accepted: "+acceptedAllowed))
		}
		if slices.Contains(entries[:i], entry) {
			errs = append(errs, field.Duplicate(path.Index(i), entry))
		}
	}
	return errs
}

// AllowsImage reports whether a pod may have an image for its proxy.
func (c Config) AllowsImage(image string) bool {
	return slices.ContainsFunc(c.AllowedProxyImages, func(entry string) bool {
		allowed, err := parseAllowedImage(entry)
		return err == nil && allowed.allows(image)
	})
}
