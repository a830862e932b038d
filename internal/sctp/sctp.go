package sctp

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/portsplice/portsplice/internal/budget"
	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/dialerror"
)

const (
	// DefaultDialTimeout is what a backend is given to answer when Options does not say.
	DefaultDialTimeout = 10 * time.Second

	// DefaultMemory is the memory of a port when Options does not say: eight of the largest messages.
	DefaultMemory = 8 * maxMessage

	// maxMessage bounds a message, of which the relay needs the whole before it can pass it on. A peer on Linux cannot
	// send more than its send buffer, 208 KiB by default and 416 KiB without privilege.
	maxMessage = 4 << 20
)

// Options adjust a Port. The zero value is ready for use.
type Options struct {
	// DialTimeout bounds the wait for the backend's answer: a client's association is aborted when it is over.
	// Zero means DefaultDialTimeout.
	DialTimeout time.Duration

	// Memory bounds, in bytes, what the port holds for messages that are larger than 128 KiB. While all of it is held,
	// one message is still completed at a time, and the others wait in their clients. Zero means DefaultMemory.
	Memory int64

	// Report, if not nil, is told of failures: op is "accept", "dial" or "relay". It is called on the goroutine of an
	// event loop and without a lock held: it must not block, nor call Abort, but may call Stats. client is the
	// zero AddrPort when op is "accept". A peer that aborts its association is not a failure: it is counted.
	Report func(op string, client, backend netip.AddrPort, err error)

	// Ended, if not nil, is told why, if the port's listener ends by itself: it does not listen any more, or accept has been
	// forbidden (EPERM, EACCES) for the dial timeout. The pairs go on. It is called as Report is.
	Ended func(error)

	// Observe, if not nil, is told of every association of a client when it is accepted, when the backend's stands and when
	// both have ended: by whom and why, and how many bytes of messages they have carried. It is called as Report is.
	Observe func(connection.Connection)

	// Budget bounds the descriptors of ports that share a process. May be nil.
	Budget *budget.Descriptors

	patience patience // zero means defaultPatience
}

func (o Options) withDefaults() Options {
	if o.DialTimeout == 0 {
		o.DialTimeout = DefaultDialTimeout
	}
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	if o.Report == nil {
		o.Report = func(string, netip.AddrPort, netip.AddrPort, error) {}
	}
	if o.Ended == nil {
		o.Ended = func(error) {}
	}
	if o.Observe == nil {
		o.Observe = func(connection.Connection) {}
	}
	if o.patience == (patience{}) {
		o.patience = defaultPatience
	}
	return o
}

// patience is how long a pair waits for its legs.
type patience struct {
	flush   time.Duration // for the legs of a failed pair to deliver what was forwarded before
	stall   time.Duration // for a leg to take the next message, when the sender of the message has gone
	message time.Duration // for the end of a message that has begun to come
	check   time.Duration // between two looks at a pump that waits
	memory  time.Duration // between two tries of a pump that has no memory
}

// A flush takes round trips, unless the peer does not read; five seconds are many, and delay the abort of a peer
// that is stuck by no more. A receiver may well stop reading for a while, and gets a minute. The largest message has
// come within two at 35 kB/s. A look is one system call, so that once a second is next to nothing.
var defaultPatience = patience{
	flush: 5 * time.Second, stall: time.Minute, message: 2 * time.Minute, check: time.Second, memory: 100 * time.Millisecond,
}

// Stats counts what a Port has done. In is from clients to the backend, Out is from the backend to clients.
type Stats struct {
	Accepted     uint64 // associations of clients; one that a client begins anew on the same ports is another
	Active       uint64 // of them, those that have not ended
	AcceptErrors uint64 // failed attempts to accept; the port goes on after each
	Aborted      uint64 // pairs that a peer or a failure ended, rather than a shutdown
	Undelivered  uint64 // messages read, but too late for the side they were meant for
	Remapped     uint64 // messages sent on another stream than theirs, which the receiver had not granted
	MessagesIn   uint64
	MessagesOut  uint64
	BytesIn      uint64
	BytesOut     uint64

	dialerror.Counts // of backends that refused, could not be reached or did not answer in time; their clients were reset
}

// String gives the counters as "name=value" words.
func (s Stats) String() string {
	return fmt.Sprintf("accepted=%d active=%d accept-errors=%d %v "+
		"aborted=%d undelivered=%d remapped=%d "+
		"messages-in=%d messages-out=%d bytes-in=%d bytes-out=%d",
		s.Accepted, s.Active, s.AcceptErrors, s.Counts, s.Aborted, s.Undelivered, s.Remapped,
		s.MessagesIn, s.MessagesOut, s.BytesIn, s.BytesOut)
}
