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
	// clearing is how often room is made while somebody waits for it.
	clearing = 50 * time.Millisecond
)

// intake bounds the memory of bodies. Where there is no more, the one that has
// been on its way for longest is cut off: whoever is slow to send, or holds the
// last byte back, cannot keep others from being answered.
type intake struct {
	dropped func() // counts what is cut off

	mutex   sync.Mutex
	memory  int64
	free    int64
	arrives list.List // of *body, the first to begin first
	wanting list.List // of *want, the last to ask first: who has waited long has been slow
	clears  bool      // whether clear is to be run
}

// want is memory that a body waits for.
type want struct {
	body    *body
	room    int64
	granted chan struct{}
}

func newIntake(memory int64, dropped func()) *intake {
	return &intake{memory: memory, free: memory, dropped: dropped}
}

// body is one that is read.
type body struct {
	in    *intake
	at    *list.Element // of in.arrives; nil when it has arrived
	began time.Time
	stop  func() // ends a read that waits for the client
	held  int64
	asks  int64         // for as much more
	cut   chan struct{} // closed when it has to give way
	bytes []byte
}

// errCut is that a body had to give way.
var errCut = errors.New("it came too slowly, and its memory was needed")

// begin registers a body. Stop is called at most once, and not after arrived.
func (in *intake) begin(stop func()) *body {
	in.mutex.Lock()
	defer in.mutex.Unlock()
	b := &body{in: in, began: time.Now(), stop: stop, cut: make(chan struct{})}
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
			n, err := r.Read(b.bytes[len(b.bytes):cap(b.bytes)])
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

func (b *body) wasCut() bool {
	select {
	case <-b.cut:
		return true
	default:
		return false
	}
}

// grow gives it a larger buffer, as soon as there is memory for that.
func (b *body) grow(ctx context.Context, room int64) error {
	if wanted, at := b.in.ask(b, room); wanted != nil {
		select {
		case <-wanted.granted:
		case <-b.cut:
		case <-ctx.Done():
		}
		switch granted := b.in.withdraw(at); {
		case granted:
		case b.wasCut():
			return errCut
		default:
			return ctx.Err()
		}
	}
	larger := make([]byte, len(b.bytes), room)
	copy(larger, b.bytes)
	b.bytes = larger
	b.in.give(b, b.held-room) // the buffer before
	return nil
}

// ask takes memory for a body, or returns what it has to wait for.
func (in *intake) ask(b *body, room int64) (*want, *list.Element) {
	in.mutex.Lock()
	defer in.mutex.Unlock()
	if in.take(b, room) {
		return nil, nil
	}
	b.asks = room
	wanted := &want{b, room, make(chan struct{})}
	at := in.wanting.PushFront(wanted)
	if !in.clears {
		in.clears = true
		time.AfterFunc(clearing, in.clear)
	}
	return wanted, at
}

// withdraw ends a wait, and reports whether the memory was granted.
func (in *intake) withdraw(at *list.Element) bool {
	in.mutex.Lock()
	defer in.mutex.Unlock()
	wanted := at.Value.(*want)
	wanted.body.asks = 0
	in.wanting.Remove(at)
	select {
	case <-wanted.granted:
		return true
	default:
		return false
	}
}

func (in *intake) take(b *body, room int64) bool {
	reserved := int64(0)
	if room > largeBody {
		reserved = in.memory / 4
	}
	if in.free-room < reserved {
		return false
	}
	in.free -= room
	b.held += room
	return true
}

// clear has bodies give way until there is room for those that wait, or nobody
// has had his time: large ones first, and the oldest of each.
func (in *intake) clear() {
	in.mutex.Lock()
	defer in.mutex.Unlock()
	missing := -in.free
	for at := in.wanting.Front(); at != nil; at = at.Next() {
		missing += at.Value.(*want).room
	}
	for _, large := range []bool{true, false} {
		for at := in.arrives.Front(); at != nil && missing > 0; at = at.Next() {
			b := at.Value.(*body)
			if time.Since(b.began) < patience {
				break
			}
			if b.held == 0 || b.wasCut() || large != (max(b.held, b.asks) > largeBody) {
				continue
			}
			missing -= b.held + b.asks
			close(b.cut)
			b.stop()
			in.dropped()
		}
	}
	if in.clears = in.wanting.Len() > 0; in.clears {
		time.AfterFunc(clearing, in.clear)
	}
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
	for at := in.wanting.Front(); at != nil && in.free > 0; at = at.Next() {
		wanted := at.Value.(*want)
		select {
		case <-wanted.granted:
			continue
		default:
		}
		if !wanted.body.wasCut() && in.take(wanted.body, wanted.room) {
			close(wanted.granted)
		}
	}
}
