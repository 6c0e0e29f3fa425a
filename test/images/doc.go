// Package images makes a release with hack/release.sh and holds it to what is
// said of it. Of the images: what they run and as whom, that nothing is in
// them that should not be, that an injected pod's init container works in its
// image, in a network namespace, and that the Dockerfile says the same. Of
// the rest: that everything is of the release's version, names its images,
// and has its checksum and bill of materials; that a registry takes the
// images; and that a second run gives the same bytes.
//
// An archive is read here with the standard library alone, so that what wrote
// it is not what judges it.
package images
