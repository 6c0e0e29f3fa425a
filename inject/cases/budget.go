//go:build unix

package cases

import (
	"fmt"
	"runtime"
	"time"
)

// Budget is what an input of so many bytes may cost. Time is the processors',
// and generous: what grows faster than its input exceeds it by far.
type Budget struct {
	Memory, MemoryPerByte uint64
	Time, TimePerByte     time.Duration
}

// Check runs what is done with an input of so many bytes.
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
