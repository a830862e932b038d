package udp

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
)

// Stats are counts since New, except Flows. Every datagram the relay receives is counted once, as relayed (in or
// out) or as dropped; FlowsTotal is Flows + Evicted + Expired + Abandoned until Close.
type Stats struct {
	Flows      uint64 // in the table now
	FlowsTotal uint64 // ever opened
	Evicted    uint64 // flows forgotten to make room for a new client
	Expired    uint64 // flows forgotten because they were idle
	Abandoned  uint64 // flows given up because their socket failed

	DatagramsIn  uint64 // sent to the backend
	DatagramsOut uint64 // sent to clients
	BytesIn      uint64
	BytesOut     uint64

	Dropped uint64 // datagrams received, from either side, and not sent on
	Retried uint64 // datagrams in DatagramsIn that needed the second try
	Refused uint64 // times an ICMP answer said that nobody listens at the backend
}

// String gives the counters as "name=value" words.
func (s Stats) String() string {
	return fmt.Sprintf("flows=%d flows-total=%d evicted=%d expired=%d abandoned=%d datagrams-in=%d datagrams-out=%d "+
		"bytes-in=%d bytes-out=%d dropped=%d retried=%d refused=%d",
		s.Flows, s.FlowsTotal, s.Evicted, s.Expired, s.Abandoned, s.DatagramsIn, s.DatagramsOut,
		s.BytesIn, s.BytesOut, s.Dropped, s.Retried, s.Refused)
}

type counters struct {
	flows, evicted, expired, abandoned           atomic.Uint64
	datagramsIn, datagramsOut, bytesIn, bytesOut atomic.Uint64
	dropped, retried, refused                    atomic.Uint64
}

// Stats returns the counts. They are read one after the other: while datagrams move they may differ by these.
func (r *Relay) Stats() Stats {
	r.mu.Lock()
	flows := r.flows.len()
	r.mu.Unlock()
	c := &r.count
	return Stats{
		Flows:        uint64(flows),
		FlowsTotal:   c.flows.Load(),
		Evicted:      c.evicted.Load(),
		Expired:      c.expired.Load(),
		Abandoned:    c.abandoned.Load(),
		DatagramsIn:  c.datagramsIn.Load(),
		DatagramsOut: c.datagramsOut.Load(),
		BytesIn:      c.bytesIn.Load(),
		BytesOut:     c.bytesOut.Load(),
		Dropped:      c.dropped.Load(),
		Retried:      c.retried.Load(),
		Refused:      c.refused.Load(),
	}
}

// countRefusal reports whether err is an ICMP answer of the backend's host, and counts it.
func (r *Relay) countRefusal(err error) bool {
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return false
	}
	r.count.refused.Add(1)
	return true
}
