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
	// AcceptedImage describes what ParseImage accepts.
	AcceptedImage   = "an image reference such as registry.example/team/envoy:v1"
	acceptedAllowed = "a registry, a repository in one or an image, with the registry's name: " +
		"registry.example, docker.io/envoyproxy, registry.example/envoy:v1"
)

// ParseImage reads an image reference and returns it with its registry. So the
// configuration is compared with what a node pulls, whichever registry that node
// uses for names without one.
func ParseImage(text string) (string, error) {
	named, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		return "", &interception.ValueError{Value: text, Accepted: AcceptedImage}
	}
	return named.String(), nil
}

// allowedImage is an entry of Config.AllowedProxyImages. One of its fields is set.
type allowedImage struct {
	below string // a registry or repository, with all below it
	image string // a single image, by tag or digest
}

// parseAllowedImage reads an entry. It must have the registry's name: without one,
// each node would choose the registry.
func parseAllowedImage(text string) (allowedImage, error) {
	wrong := &interception.ValueError{Value: text, Accepted: acceptedAllowed}
	registry, _, isImage := strings.Cut(text, "/")
	if !isImage {
		text += "/any" // a registry alone, with or without its port, is no reference
	}
	if registry != "localhost" && !strings.ContainsAny(registry, ".:") {
		return allowedImage{}, wrong
	}
	// Docker's rules would turn docker.io/name into docker.io/library/name.
	parsed, err := reference.Parse(text)
	named, isNamed := parsed.(reference.Named)
	switch {
	case err != nil, !isNamed, reference.Domain(named) != registry:
		return allowedImage{}, wrong
	case !isImage:
		return allowedImage{below: registry}, nil
	case reference.IsNameOnly(named):
		return allowedImage{below: named.Name()}, nil
	default:
		return allowedImage{image: pulled(named)}, nil
	}
}

// pulled returns the reference that a node pulls: by the digest if there is one,
// whatever the tag beside it.
func pulled(named reference.Named) string {
	if digested, isDigested := named.(reference.Digested); isDigested {
		return named.Name() + "@" + digested.Digest().String()
	}
	return named.String()
}

// allows reports whether the entry allows a reference that ParseImage returned.
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

// checkAllowedImages returns an error for each invalid or duplicate entry.
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

// AllowsImage reports whether a pod may use an image for its proxy.
func (c Config) AllowsImage(image string) bool {
	return slices.ContainsFunc(c.AllowedProxyImages, func(entry string) bool {
		allowed, err := parseAllowedImage(entry)
		return err == nil && allowed.allows(image)
	})
}

// UnsetImages returns an error for each image that nobody has set: the init image
// of Default, and those of a registry in .invalid, a top-level domain that never
// exists (RFC 2606). The manifests ship such a name, to be replaced.
func (c Config) UnsetImages() field.ErrorList {
	var errs field.ErrorList
	for _, image := range []struct {
		field, name, example string
	}{
		{"initImage", c.InitImage, "registry.example/shunt-init:v0.1.0"},
		{"proxyImage", c.ProxyImage, Default().ProxyImage},
	} {
		named, err := reference.ParseNormalizedNamed(image.name)
		if err != nil {
			continue // what it is, only the node knows
		}
		registry, _, _ := strings.Cut(reference.Domain(named), ":")
		if image.name == Default().InitImage || strings.HasSuffix(registry, ".invalid") {
			errs = append(errs, field.Invalid(field.NewPath(image.field), image.name,
				"nobody has set it; accepted: an image that the nodes can pull, such as "+image.example))
		}
	}
	return errs
}
