package sctp

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/eventloop"
)

// pumpState is drawn in the package documentation.
type pumpState uint8

const (
	reading    pumpState = iota // holds nothing; reads when the source has something
	collecting                  // holds a part of a message too large for a batch; reads on
	starved                     // the same, but the port has no memory for more of it: reads on when it has
	blocked                     // holds messages that the destination has no room for; reads nothing
	denied                      // the same, but epoll said that there was room: waits for the next look
	over                        // the end of the source was passed on
)

// A pump carries the messages of one direction. What to does not take stays in the pump, and nothing more is read until
// it has left.
type pump struct {
	pair            *pair
	from, to        *leg
	messages, bytes *atomic.Uint64
	total           uint64 // bytes of this pump

	state  pumpState
	queued bool     // it is in the loop's queue of streams: there is more to be read
	batch  *batch   // messages that wait for to; nil while there are none
	large  *message // one too large for a batch, being collected or, when it is whole, waiting; nil otherwise
	rest   *batch   // what was read before the pump began; nil once it has been sorted
	end    error    // what was read behind the messages that are held; nil while more may come
	closed bool     // to takes no more messages; its reader will learn why
	grand  bool     // the last message was too large for a batch, so the next may well be

	stalled time.Duration // when a look first found that to takes nothing; zero while it does
}

// wants says whether the pump would read.
func (u *pump) wants() bool { return u.state == reading || u.state == collecting }

// waits says whether the pump has to be looked at from time to time.
func (u *pump) waits() bool { return u.state != reading && u.state != over }

// holding says whether whole messages wait for to.
func (u *pump) holding() bool { return u.batch != nil || u.large != nil && u.large.whole }

// readable reads what epoll says there is: one batch, and the rest when the pump's turn comes.
func (u *pump) readable() {
	switch {
	case !u.wants():
	case u.queued:
		u.pair.loop.More()
	case u.turn():
		u.queued = true
		u.pair.loop.More()
		u.pair.loop.Enqueue(u)
	}
}

// Run is a turn in the loop's queue.
func (u *pump) Run() eventloop.Verdict {
	u.queued = false
	u.pair.loop.Stream(u.pair.frontend.handle, 1)
	more := u.wants() && u.turn()
	u.pair.settle()
	if !more || u.pair.state == ended {
		return eventloop.Done
	}
	u.queued = true
	return eventloop.Next
}

// leaveQueue takes the pump out of the loop's queue.
func (u *pump) leaveQueue() {
	if u.queued {
		u.pair.loop.Dequeue(u)
		u.queued = false
	}
}

// turn reads up to a batch, or a slice of a large message, and sends it on. It reports whether there is more to be read, or may be:
// of a leg that is told of changes only, until there is nothing.
func (u *pump) turn() (more bool) {
	more, err := u.read()
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		u.end = err
	}
	u.push()
	return (more || err == nil && u.from.byEdges()) && u.wants()
}

// writable sends what is held when epoll says that to has room.
func (u *pump) writable() {
	if u.state == blocked && !u.push() {
		u.state = denied
	}
}

// push sends what the pump holds, and passes the end on when there is nothing left before it. The state is what follows
// from what is left. It reports false when to took nothing.
func (u *pump) push() (moved bool) {
	moved = u.drain()
	switch {
	case u.state == over:
	case u.holding():
		u.state = blocked
	case u.end != nil:
		u.state = over
		if u.pair.first == "" {
			u.pair.first = u.from.side()
		}
		u.finish()
	case u.large == nil:
		u.state = reading
	case u.large.hungry:
		u.state = starved
	default:
		u.state = collecting
	}
	return moved
}

// finish passes the end of from on to the pair.
func (u *pump) finish() {
	switch p := u.pair; {
	case errors.Is(u.end, errFlushed): // the pair is failing already
	case errors.Is(u.end, errRestart) && p.mayRestart(u):
		p.restart()
	case !errors.Is(u.end, errShutdown):
		p.fail(u.from.side(), u.end)
	case p.state == relaying: // in a pair that fails, a shutdown would look like an orderly end
		u.to.shutdown()
	}
}

// look is called from time to time while the pump waits. While both associations live there is no limit: that is back
// pressure. When the sender has gone, what it has left behind keeps two sockets and a buffer: not for ever. Nor does a
// message keep memory that others wait for.
func (u *pump) look(now time.Duration) {
	memory, patience := &u.pair.port.memory, &u.pair.port.settings.Load().patience
	switch u.state {
	case blocked, denied:
		u.push()
		switch {
		case !u.holding():
		case u.stalled == 0:
			u.stalled = now
		case now-u.stalled < patience.stall:
		case u.from.gone():
			u.pair.fail(u.to.side(), fmt.Errorf("the sender has gone and the receiver takes no more: %w", os.ErrDeadlineExceeded))
		case u.large.grown() > 0 && now-time.Duration(memory.starved.Load()) < patience.stall:
			u.pair.fail(u.to.side(), fmt.Errorf("the receiver takes no more, and others wait for the memory: %w", unix.ENOBUFS))
		}
	case starved:
		memory.starved.Store(int64(now))
		u.large.since = now // it is not the sender's fault
		if u.large.grow() {
			u.push()
		}
	case collecting:
		if len(u.large.data) > 0 && now-u.large.since >= patience.message {
			u.pair.fail(u.from.side(), fmt.Errorf("of a message %d bytes have come within %v, and not its end: %w",
				len(u.large.data), patience.message, os.ErrDeadlineExceeded))
		}
	}
}

// drain sends what the pump holds, until to takes no more: not even one message, unless moved. A pair that fails
// forwards nothing more, but for what has been begun to share packets with it: see leg.send.
func (u *pump) drain() (moved bool) {
	for {
		if u.closed || u.pair.state == failing && !u.to.corked {
			u.drop()
		}
		if !u.holding() {
			return true
		}
		n, err := u.sendSome()
		switch {
		case err == nil:
			u.advance(n)
			moved = true
		case err == unix.EAGAIN || passing(err): //nolint:errorlint // callError does not wrap it
			return moved
		default:
			u.refused(err)
		}
	}
}

// sendSome sends what the kernel takes by one call.
func (u *pump) sendSome() (n int, err error) {
	if u.batch != nil {
		return u.to.send(u.batch.waiting(), u.batch.largest)
	}
	return u.to.send(u.large.head[:], len(u.large.data))
}

// advance counts what has left, and gives back what held it.
func (u *pump) advance(n int) {
	u.stalled = 0
	u.messages.Add(uint64(n))
	if u.batch == nil {
		u.countBytes(len(u.large.data))
		u.large.release()
		u.large = nil
		return
	}
	sum := 0
	for _, h := range u.batch.waiting()[:n] {
		sum += int(h.Len)
	}
	u.countBytes(sum)
	u.batch.sent += n
	if len(u.batch.waiting()) == 0 {
		u.batch.release()
		u.batch = nil
	}
}

func (u *pump) countBytes(n int) {
	u.total += uint64(n)
	u.bytes.Add(uint64(n))
}

// refused takes the failure of a send. If the association is what failed, its reader will come to the reason. Anything
// else is about the message, or about this system.
func (u *pump) refused(err error) {
	u.closed = true
	if !finished(err) {
		u.pair.fail(u.to.side(), err)
	}
}

// drop forgets what the pump holds, and counts it.
func (u *pump) drop() {
	lost := 0
	if u.batch != nil {
		lost += len(u.batch.waiting())
		u.batch.release()
		u.batch = nil
	}
	if u.large != nil {
		if u.large.whole {
			lost++
		}
		u.large.release()
		u.large = nil
	}
	if u.rest != nil && u.pair.state == ended {
		lost += u.rest.unsorted()
		u.rest.release()
		u.rest = nil
	}
	u.pair.port.count.undelivered.Add(uint64(lost))
}

// passing tells that a call failed for want of something that others may give back.
func passing(err error) bool {
	return isOneOf(err, unix.EAGAIN, unix.ENOMEM, unix.ENOBUFS, unix.EMFILE, unix.ENFILE)
}

// finished tells that a send failed because the association is over, or is shutting down.
func finished(err error) bool {
	return isOneOf(err, unix.ESHUTDOWN, unix.EPIPE, unix.ENOTCONN, unix.ECONNRESET, unix.ECONNABORTED, unix.ECONNREFUSED,
		unix.ETIMEDOUT, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EPROTO)
}

func isOneOf(err error, errnos ...unix.Errno) bool {
	var errno unix.Errno
	return errors.As(err, &errno) && slices.Contains(errnos, errno)
}
