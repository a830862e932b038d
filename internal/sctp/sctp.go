package sctp

import (
	"fmt"
	"net/netip"
	"time"
)

// DefaultDialTimeout is what a backend is given to answer when Options does not say.
const DefaultDialTimeout = 10 * time.Second

// Options adjust a Relay. The zero value is ready for use.
type Options struct {
	// DialTimeout bounds the wait for the backend's answer: a client's association is aborted when it is over.
	// Zero means DefaultDialTimeout.
	DialTimeout time.Duration

	// Report, if not nil, is told of failures: op is "accept", "dial" or "relay". It must not block. client is the
	// zero AddrPort when op is "accept". A peer that aborts its association is not a failure: it is counted.
	Report func(op string, client, backend netip.AddrPort, err error)
}

// Stats counts what a Relay has done. In is from clients to the backend, Out is from the backend to clients.
type Stats struct {
	Accepted     uint64 // associations of clients
	Active       uint64 // of them, those that have not ended
	AcceptErrors uint64 // failed attempts to accept; the relay goes on after each
	DialErrors   uint64 // clients aborted because the backend could not be reached
	Aborted      uint64 // pairs that a peer or a failure ended, rather than a shutdown
	Undelivered  uint64 // messages read, but too late for the side they were meant for
	MessagesIn   uint64
	MessagesOut  uint64
	BytesIn      uint64
	BytesOut     uint64
}

// String gives the counters as "name=value" words.
func (s Stats) String() string {
	return fmt.Sprintf("accepted=%d active=%d accept-errors=%d dial-errors=%d aborted=%d undelivered=%d "+
		"messages-in=%d messages-out=%d bytes-in=%d bytes-out=%d",
		s.Accepted, s.Active, s.AcceptErrors, s.DialErrors, s.Aborted, s.Undelivered,
		s.MessagesIn, s.MessagesOut, s.BytesIn, s.BytesOut)
}
