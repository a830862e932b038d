package sctp

import (
	"sync"
	"sync/atomic"
	"time"
)

// patience is how long a pair waits for its legs.
type patience struct {
	flush time.Duration // for the legs of a failed pair to deliver what was forwarded before
	stall time.Duration // for a leg to take the next message, when the sender of the message has gone
	check time.Duration // between two looks at a pump that waits for room
}

// defaultPatience: a flush takes round trips, unless the peer does not read; five seconds are many, and delay
// the abort of a peer that is stuck by no more. A receiver may well stop reading for a while, and gets a minute.
// A look is one system call, so that once a second is next to nothing.
var defaultPatience = patience{flush: 5 * time.Second, stall: time.Minute, check: time.Second}

// counters are the Stats in the making.
type counters struct {
	accepted, active, acceptErrors, dialErrors, aborted, undelivered atomic.Uint64
	messagesIn, messagesOut, bytesIn, bytesOut                       atomic.Uint64
}

// A pair is a client's association and the one to the backend that belongs to it.
type pair struct {
	frontend, backend *leg // to the client, to the container
	patience          patience
	count             *counters
	cause             atomic.Pointer[error] // of the failure; nil while there is none
}

// run relays in both directions until both have ended. It returns why the pair failed, or nil if it did not.
func (p *pair) run() error {
	in := &pump{pair: p, from: p.frontend, to: p.backend, messages: &p.count.messagesIn, bytes: &p.count.bytesIn}
	out := &pump{pair: p, from: p.backend, to: p.frontend, messages: &p.count.messagesOut, bytes: &p.count.bytesOut}

	var pumps sync.WaitGroup
	pumps.Go(out.run)
	in.run()
	pumps.Wait()

	p.frontend.end(p.failing())
	p.backend.end(p.failing())
	if cause := p.cause.Load(); cause != nil {
		return *cause
	}
	return nil
}

func (p *pair) failing() bool { return p.cause.Load() != nil }

// fail stops the forwarding. The pumps read on until their legs are flushed. Only the first cause counts.
func (p *pair) fail(cause error) {
	if !p.cause.CompareAndSwap(nil, &cause) {
		return
	}
	p.frontend.flush(p.patience.flush)
	p.backend.flush(p.patience.flush)
}
