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
	// bodiesMemory bounds the memory of all bodies that are read or worked on. A
	// usual pod's body takes some kB.
	bodiesMemory = 32 << 20
	// largeBody is the size from which on a body must leave a quarter of that free,
	// so that large bodies cannot keep usual ones out.
	largeBody = 64 << 10
	// firstRead is the first buffer of a body without a stated size.
	firstRead = 4 << 10
	// patience is how long a body may take to arrive before it can be evicted. API
	// servers send theirs in milliseconds.
	patience = 500 * time.Millisecond
	// evictInterval is how often memory is freed while a body waits for it.
	evictInterval = 50 * time.Millisecond
)

// intake bounds the memory of bodies. If there is no more, it cuts off the body
// that has been arriving for longest. So a client that sends slowly, or withholds
// the last byte, cannot keep others from being answered.
type intake struct {
	dropped func() // counts evictions

	mutex    sync.Mutex
	memory   int64
	free     int64
	arriving list.List // of *body, the oldest first
	waiting  list.List // of *memoryRequest, the newest first: a body that has waited long has been slow
	evicting bool      // whether evict is scheduled
}

// memoryRequest is memory that a body waits for.
type memoryRequest struct {
	body    *body
	room    int64
	granted chan struct{}
}

func newIntake(memory int64, dropped func()) *intake {
	return &intake{memory: memory, free: memory, dropped: dropped}
}

// body is the body of one request.
type body struct {
	in        *intake
	element   *list.Element // of in.arriving; nil once it has arrived
	began     time.Time
	stop      func() // ends a read that waits for the client
	held      int64
	requested int64         // bytes that it waits for
	evicted   chan struct{} // closed when it is evicted
	bytes     []byte
}

// errEvicted is the error of a body that was evicted.
var errEvicted = errors.New("it arrived too slowly, and its memory was needed")

// register adds a body. stop is called at most once, and not after arrived.
func (in *intake) register(stop func()) *body {
	in.mutex.Lock()
	defer in.mutex.Unlock()
	b := &body{in: in, began: time.Now(), stop: stop, evicted: make(chan struct{})}
	b.element = in.arriving.PushBack(b)
	return b
}

// read reads the whole body. size is what the client states, or -1. The buffer
// grows with what has arrived, not with what is stated.
func (b *body) read(ctx context.Context, reader io.Reader, size int64) error {
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
			n, err := reader.Read(b.bytes[len(b.bytes):cap(b.bytes)])
			b.bytes = b.bytes[:len(b.bytes)+n]
			switch {
			case errors.Is(err, io.EOF):
				return nil
			case err != nil && b.wasEvicted():
				return errEvicted
			case err != nil:
				return err
			}
		}
		if room *= 2; size >= 0 {
			room = min(room, size+1)
		}
	}
}

func (b *body) wasEvicted() bool {
	select {
	case <-b.evicted:
		return true
	default:
		return false
	}
}

// grow gives the body a larger buffer, as soon as there is memory for it.
func (b *body) grow(ctx context.Context, room int64) error {
	if wanted, element := b.in.reserve(b, room); wanted != nil {
		select {
		case <-wanted.granted:
		case <-b.evicted:
		case <-ctx.Done():
		}
		switch granted := b.in.endWait(element); {
		case granted:
		case b.wasEvicted():
			return errEvicted
		default:
			return ctx.Err()
		}
	}
	larger := make([]byte, len(b.bytes), room)
	copy(larger, b.bytes)
	b.bytes = larger
	b.in.giveBack(b, b.held-room) // the former buffer
	return nil
}

// reserve takes memory for a body, or returns the request that it has to wait for.
func (in *intake) reserve(b *body, room int64) (*memoryRequest, *list.Element) {
	in.mutex.Lock()
	defer in.mutex.Unlock()
	if in.take(b, room) {
		return nil, nil
	}
	b.requested = room
	wanted := &memoryRequest{b, room, make(chan struct{})}
	element := in.waiting.PushFront(wanted)
	if !in.evicting {
		in.evicting = true
		time.AfterFunc(evictInterval, in.evict)
	}
	return wanted, element
}

// endWait ends a wait, and reports whether the memory was granted.
func (in *intake) endWait(element *list.Element) bool {
	in.mutex.Lock()
	defer in.mutex.Unlock()
	wanted := element.Value.(*memoryRequest)
	wanted.body.requested = 0
	in.waiting.Remove(element)
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

// evict cuts bodies off until there is memory for those that wait, or none has
// exceeded its patience: large ones first, and the oldest of each kind.
func (in *intake) evict() {
	in.mutex.Lock()
	defer in.mutex.Unlock()
	missing := -in.free
	for element := in.waiting.Front(); element != nil; element = element.Next() {
		missing += element.Value.(*memoryRequest).room
	}
	for _, large := range []bool{true, false} {
		for element := in.arriving.Front(); element != nil && missing > 0; element = element.Next() {
			body := element.Value.(*body)
			if time.Since(body.began) < patience {
				break
			}
			if body.held == 0 || body.wasEvicted() || large != (max(body.held, body.requested) > largeBody) {
				continue
			}
			missing -= body.held + body.requested
			close(body.evicted)
			body.stop()
			in.dropped()
		}
	}
	if in.evicting = in.waiting.Len() > 0; in.evicting {
		time.AfterFunc(evictInterval, in.evict)
	}
}

// arrived removes a body from those that are arriving.
func (b *body) arrived() {
	b.in.mutex.Lock()
	defer b.in.mutex.Unlock()
	if b.element != nil {
		b.in.arriving.Remove(b.element)
		b.element = nil
	}
}

// release gives the memory of a finished body back.
func (b *body) release() {
	b.bytes = nil
	b.in.giveBack(b, b.held)
}

func (in *intake) giveBack(b *body, memory int64) {
	if memory <= 0 {
		return
	}
	in.mutex.Lock()
	defer in.mutex.Unlock()
	b.held -= memory
	in.free += memory
	for element := in.waiting.Front(); element != nil && in.free > 0; element = element.Next() {
		wanted := element.Value.(*memoryRequest)
		select {
		case <-wanted.granted:
			continue
		default:
		}
		if !wanted.body.wasEvicted() && in.take(wanted.body, wanted.room) {
			close(wanted.granted)
		}
	}
}
