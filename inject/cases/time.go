//go:build unix

package cases

import (
	"syscall"
	"time"
)

// ProcessorTime returns the processor time of this process, which other processes
// on the machine hardly change.
func ProcessorTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic("a process may always ask for its own usage: " + err.Error())
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
