package udp

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/eventloop"
)

// trimAfter is how long no datagram must have come before a lane gives the pages of its buffers back. It is far longer
// than the pauses of traffic that goes on, for which they would be taken again: 0.25 us for each.
const trimAfter = time.Second

// lane is what the ports on one loop share: buffers, and the batches of messages that are received into them and sent
// from them. It belongs to the loop's goroutine.
type lane struct {
	loop   *eventloop.Loop
	in     intake
	out    outbox
	single single
	arena  arena // holds what the messages of in and out point to

	turn     uint32  // one look of the loop that brought a datagram, and what follows from it
	begun    bool    // the turn has; its end is to come
	asked    []*Port // their frontends are ready
	trimming eventloop.Timer
	trimmed  uint32 // the turn in which the timer was set
}

// lanes are those of all loops that have any: *eventloop.Loop to *lane.
var lanes sync.Map

// laneOf gives a loop's lane, on the loop's goroutine. It ends with the loop.
func laneOf(loop *eventloop.Loop) *lane {
	if found, ok := lanes.Load(loop); ok {
		return found.(*lane)
	}
	l := &lane{loop: loop, arena: newArena(), turn: 1} // so that no socket seems to have been asked in the turn before
	lanes.Store(loop, l)
	loop.AtEnd(func() {
		lanes.Delete(loop)
		l.arena.release()
	})
	return l
}

// begin is called for each event that brings datagrams.
func (l *lane) begin() {
	if !l.begun {
		l.begun = true
		l.turn++
		l.loop.AtTurnEnd(l)
	}
}

// TurnEnd sends the replies that are left of the turn, and then takes what clients have sent: each reply was a request
// before.
func (l *lane) TurnEnd() {
	l.flush()
	for _, p := range l.asked {
		p.receiveRequests(l)
	}
	l.asked, l.begun = l.asked[:0], false
	if l.arena.written && !l.trimming.Set() {
		l.trimmed = l.turn
		l.loop.SetTimer(&l.trimming, l, l.loop.Now()+trimAfter)
	}
	// Clients and backends have something to answer. If they do so before the loop sleeps it need not be woken for it.
	l.loop.Yield()
}

// Ring gives the pages of the buffers back if nothing has come for a while.
func (l *lane) Ring(now time.Duration) {
	if l.turn == l.trimmed {
		l.arena.trim()
		return
	}
	l.trimmed = l.turn
	l.loop.SetTimer(&l.trimming, l, now+trimAfter)
}

// batch is how many messages are received or sent by one system call at most: what a turn takes from a socket, and
// what bounds how long the others wait for it.
const batch = 32

// stride is from one buffer of the arena to the next. With a power of two all of them would begin in the same sets of
// the CPU's caches.
const stride = maxDatagram + 4096 + 512

// arena is memory for a batch of messages of any size. It is outside of Go's heap, so that the pages that were
// written to can be given back, and takes up none before.
type arena struct {
	memory  []byte
	mapped  bool
	written bool // to more than the first page
}

func newArena() arena {
	memory, err := unix.Mmap(-1, 0, batch*stride, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil { // a sandbox that allows Go its memory, but not us
		return arena{memory: make([]byte, batch*stride)}
	}
	// A first byte would take 2 MiB where huge pages are always used. Where there are none this fails, and is not
	// needed.
	_ = unix.Madvise(memory, unix.MADV_NOHUGEPAGE)
	return arena{memory: memory, mapped: true}
}

// buffer gives one of the buffers.
func (a *arena) buffer(i int) []byte { return a.memory[i*stride:][:maxDatagram] }

// noteWritten is told how far buffer i was written to.
func (a *arena) noteWritten(i, bytes int) {
	if i > 0 || bytes > os.Getpagesize() {
		a.written = true
	}
}

// trim gives the pages back.
func (a *arena) trim() {
	a.written = false
	if a.mapped {
		_ = unix.Madvise(a.memory, unix.MADV_DONTNEED) // cannot fail for memory that is mapped
	}
}

// release ends the arena's life.
func (a *arena) release() {
	if a.mapped {
		_ = unix.Munmap(a.memory) // cannot fail for memory that is mapped
	}
}
