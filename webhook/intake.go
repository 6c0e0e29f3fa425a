package webhook

import (
	"container/list"
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

const (
	// bodiesMemory is what all bodies that are read or worked on may take
	// together. One of a usual pod is some kB.
	bodiesMemory = 32 << 20
	// largeBody is the size from which a body leaves a quarter of that to
	// others, so that large ones cannot keep usual ones out.
	largeBody = 64 << 10
	// firstRead is what a body without a size gets at first.
	firstRead = 4 << 10
	// patience is how long a body may be on its way before it has to give way
	// to others. What API servers send takes milliseconds.
	patience = 500 * time.Millisecond
)

// intake bounds the memory of bodies. Where there is no more, the one that has
// been on its way for longest is cut off: whoever is slow to send, or holds the
// last byte back, cannot keep others from being answered.
type intake struct {
	dropped func() // counts what is cut off

	mutex   sync.Mutex
	memory  int64
	free    int64
	arrives list.List     // of *body, the first to begin first
	changed chan struct{} // closed when memory is given back
}

func newIntake(memory int64, dropped func()) *intake {
	return &intake{memory: memory, free: memory, changed: make(chan struct{}), dropped: dropped}
}

// body is one that is read.
type body struct {
	in    *intake
	at    *list.Element // of in.arrives; nil when it has arrived
	began time.Time
	stop  func() // ends a read that waits for the client
	held  int64
	waits bool // for the client
	cut   bool
	bytes []byte
}

// errCut is that a body had to give way.
var errCut = errors.New("it came too slowly, and its memory was needed")

// begin registers a body. Stop is called at most once, and not after arrived.
func (in *intake) begin(stop func()) *body {
	in.mutex.Lock()
	defer in.mutex.Unlock()
	b := &body{in: in, began: time.Now(), stop: stop}
	b.at = in.arrives.PushBack(b)
	return b
}

// read takes all of it from r. Size is what the client says that it is, or -1:
// memory is taken for what has come, and as much again, and not for that.
func (b *body) read(ctx context.Context, r io.Reader, size int64) error {
	defer b.arrived()
	room := int64(firstRead)
	if size >= 0 {
		room = min(size+1, firstRead) // one more, to see the end
	}
	for {
		if err := b.grow(ctx, room); err != nil {
			return err
		}
		for len(b.bytes) < cap(b.bytes) {
			n, err := b.readSome(r)
			b.bytes = b.bytes[:len(b.bytes)+n]
			switch {
			case errors.Is(err, io.EOF):
				return nil
			case err != nil && b.wasCut():
				return errCut
			case err != nil:
				return err
			}
		}
		if room *= 2; size >= 0 {
			room = min(room, size+1)
		}
	}
}

func (b *body) readSome(r io.Reader) (int, error) {
	b.waiting(true)
	defer b.waiting(false)
	return r.Read(b.bytes[len(b.bytes):cap(b.bytes)])
}

func (b *body) waiting(waits bool) {
	b.in.mutex.Lock()
	defer b.in.mutex.Unlock()
	b.waits = waits
}

func (b *body) wasCut() bool {
	b.in.mutex.Lock()
	defer b.in.mutex.Unlock()
	return b.cut
}

// grow gives it a larger buffer, as soon as there is memory for that.
func (b *body) grow(ctx context.Context, room int64) error {
	for {
		granted, changed, retry := b.in.grant(b, room)
		if granted {
			larger := make([]byte, len(b.bytes), room)
			copy(larger, b.bytes)
			b.bytes = larger
			b.in.give(b, b.held-room) // the buffer before
			return nil
		}
		timer := time.NewTimer(retry)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		switch {
		case b.wasCut():
			return errCut
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

// grant takes memory for a body, or has another one give way and says when to
// ask again.
func (in *intake) grant(b *body, room int64) (granted bool, changed <-chan struct{}, retry time.Duration) {
	in.mutex.Lock()
	defer in.mutex.Unlock()
	reserved := int64(0)
	if room > largeBody {
		reserved = in.memory / 4
	}
	if in.free-room >= reserved {
		in.free -= room
		b.held += room
		return true, nil, 0
	}
	return false, in.changed, in.makeRoom(b)
}

// makeRoom cuts the oldest body off that waits for its client, and returns how
// long it takes until there may be another one.
func (in *intake) makeRoom(than *body) time.Duration {
	for at := in.arrives.Front(); at != nil; at = at.Next() {
		b := at.Value.(*body)
		if age := time.Since(b.began); age < patience {
			return patience - age
		}
		if b == than || b.cut || !b.waits || b.held == 0 {
			continue
		}
		b.cut = true
		b.stop()
		in.dropped()
		break
	}
	return patience / 10
}

// arrived ends a body's part in arrives.
func (b *body) arrived() {
	b.in.mutex.Lock()
	defer b.in.mutex.Unlock()
	if b.at != nil {
		b.in.arrives.Remove(b.at)
		b.at = nil
	}
}

// release gives the memory of a body back that nobody looks at any more.
func (b *body) release() {
	b.bytes = nil
	b.in.give(b, b.held)
}

func (in *intake) give(b *body, memory int64) {
	if memory <= 0 {
		return
	}
	in.mutex.Lock()
	defer in.mutex.Unlock()
	b.held -= memory
	in.free += memory
	close(in.changed)
	in.changed = make(chan struct{})
}
