// Package allocations holds what an injection may allocate, and how large its
// patch may be: as recorded.txt says, and a tenth more. Neither depends on the
// machine, as times do.
package allocations
