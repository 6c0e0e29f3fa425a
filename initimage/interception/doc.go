// Package interception takes text in (the arguments of shunt-init, the values of a
// pod's annotations) and gives a Spec or an error out. A Spec states which of a
// pod's connections go through the proxy, in types that cannot hold a malformed
// value. It is the contract between the injector, which decides, and the init
// image, which installs the rules.
//
// Args and ParseArgs are each other's inverse. Nothing here reads a clock, a file
// or a kernel.
package interception
