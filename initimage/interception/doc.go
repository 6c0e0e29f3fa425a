// Package interception is the contract between the injector, which decides
// what of a pod's traffic goes through the proxy, and the init image, which
// makes it so: a Spec says it in types that cannot hold a malformed value.
//
// Text flows in (the arguments of shunt-init, the values of a pod's
// annotations) and a Spec or an error flows out. Args and ParseArgs are each
// other's inverse. Nothing here reads a clock, a file or a kernel.
package interception
