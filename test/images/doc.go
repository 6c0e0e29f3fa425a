// Package images holds the images that hack/images.sh builds to what they are
// said to be: which files are in them, how large they are, what they run and
// as whom, that they are the same each time, that the Dockerfile's are the
// same too, and that an injected pod's init container works in its image, in
// a network namespace.
//
// An archive is read here with the standard library alone, so that what wrote
// it is not what judges it.
package images
