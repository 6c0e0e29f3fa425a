// Package allocations holds what an injection may allocate: as many objects as
// recorded.txt says, and a tenth more. Allocations are the same on every
// machine, where times are not.
package allocations
