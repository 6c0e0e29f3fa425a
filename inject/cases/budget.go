//go:build unix

package cases

import (
	"fmt"
	"runtime"
	"time"
)

// Budget is what an input may cost by its size. Time is processor time, and
// generous: what grows faster than its input exceeds it by far.
type Budget struct {
	Memory, MemoryPerByte uint64
	Time, TimePerByte     time.Duration
}

// Check runs do, which works on an input of size bytes, and returns an error if it
// exceeds the budget.
func (b Budget) Check(size int, do func()) error {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := ProcessorTime()
	do()
	took := ProcessorTime() - start
	runtime.ReadMemStats(&after)
	if most := b.Memory + b.MemoryPerByte*uint64(size); after.TotalAlloc-before.TotalAlloc > most {
		return fmt.Errorf("%d bytes take %d bytes of memory, want %d at most", size, after.TotalAlloc-before.TotalAlloc, most)
	}
	if most := b.Time + b.TimePerByte*time.Duration(size); took > most {
		return fmt.Errorf("%d bytes take %v of the processors, want %v at most", size, took, most)
	}
	return nil
}
