// Package source reads what decides which way packets go in a pod, from wherever
// the user says: flags of shunt-init, manifests, and what else is added here. Flags
// flow in, pods of package trace flow out, the same for every command that walks
// packets.
package source
