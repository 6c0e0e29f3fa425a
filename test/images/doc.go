// Package images holds the images that hack/images.sh builds to what they are
// said to be: what they run and as whom, that nothing is in them that should
// not be, that they are the same each time, and that an injected pod's init
// container works in its image, in a network namespace. It holds the
// Dockerfile to the same settings.
//
// An archive is read here with the standard library alone, so that what wrote
// it is not what judges it.
package images
