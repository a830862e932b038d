package udp

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
)

// Stats are counts since the relay was made, except Flows. Every datagram the relay receives is counted once, as
// relayed (in or out) or as dropped; FlowsTotal is Flows + Evicted + Expired + Abandoned until Close.
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

	Blocks        uint64 // sends of several datagrams as one block (UDP_SEGMENT)
	Segments      uint64 // datagrams in DatagramsIn and DatagramsOut that were sent in blocks
	BlocksRefused uint64 // blocks that the kernel or the device did not take, and that were sent one by one

	Dropped       uint64 // datagrams received, from either side, and not sent on
	TooLarge      uint64 // of these, the ones larger than what the other side can carry
	KernelDropped uint64 // at least so many were never received: a socket had no room, the relay was too slow
	Retried       uint64 // sends that needed the second try
	SourceRefused uint64 // of Dropped, those of clients whose address the backend could not be shown
	Refused       uint64 // times an ICMP answer said that nobody listens at the backend
}

// String gives the counters as "name=value" words.
func (s Stats) String() string {
	return fmt.Sprintf("flows=%d flows-total=%d evicted=%d expired=%d abandoned=%d datagrams-in=%d datagrams-out=%d "+
		"bytes-in=%d bytes-out=%d blocks=%d segments=%d blocks-refused=%d dropped=%d too-large=%d kernel-dropped=%d "+
		"retried=%d refused=%d source-refused=%d",
		s.Flows, s.FlowsTotal, s.Evicted, s.Expired, s.Abandoned, s.DatagramsIn, s.DatagramsOut,
		s.BytesIn, s.BytesOut, s.Blocks, s.Segments, s.BlocksRefused, s.Dropped, s.TooLarge, s.KernelDropped,
		s.Retried, s.Refused, s.SourceRefused)
}

// counters are what Stats are read from.
type counters struct {
	flows, flowsTotal, evicted, expired, abandoned     atomic.Uint64
	blocks, segments, blocksRefused                    atomic.Uint64
	dropped, tooLarge, kernelDropped, retried, refused atomic.Uint64
	sourceRefused                                      atomic.Uint64

	// The two ways may be counted on two loops: each has a cache line of its own.
	ways [2]struct {
		_                [64]byte
		datagrams, bytes atomic.Uint64
	}
}

// direction is one of the two ways.
type direction int

const (
	toBackend direction = iota
	toClients
)

func (d direction) op() string { return [...]string{"send to the backend", "send to the client"}[d] }

// countSent counts datagrams that have left.
func (c *counters) countSent(way direction, datagrams, bytes int) {
	c.ways[way].datagrams.Add(uint64(datagrams))
	c.ways[way].bytes.Add(uint64(bytes))
}

// read reads the counters one after the other: while datagrams move they may differ by these.
func (c *counters) read() Stats {
	return Stats{
		Flows:         c.flows.Load(),
		FlowsTotal:    c.flowsTotal.Load(),
		Evicted:       c.evicted.Load(),
		Expired:       c.expired.Load(),
		Abandoned:     c.abandoned.Load(),
		DatagramsIn:   c.ways[toBackend].datagrams.Load(),
		DatagramsOut:  c.ways[toClients].datagrams.Load(),
		BytesIn:       c.ways[toBackend].bytes.Load(),
		BytesOut:      c.ways[toClients].bytes.Load(),
		Blocks:        c.blocks.Load(),
		Segments:      c.segments.Load(),
		BlocksRefused: c.blocksRefused.Load(),
		Dropped:       c.dropped.Load(),
		TooLarge:      c.tooLarge.Load(),
		KernelDropped: c.kernelDropped.Load(),
		Retried:       c.retried.Load(),
		Refused:       c.refused.Load(),
		SourceRefused: c.sourceRefused.Load(),
	}
}

// countLost counts what a socket had no room for since that was told last. The kernel's count wraps around, and a
// datagram that has waited tells an older one than the socket itself.
func (c *counters) countLost(before *atomic.Uint32, now uint32) {
	for {
		last := before.Load()
		if int32(now-last) <= 0 {
			return
		}
		if before.CompareAndSwap(last, now) {
			c.kernelDropped.Add(uint64(now - last))
			return
		}
	}
}

// countDrop counts datagrams that the relay gives up, for that reason.
func (c *counters) countDrop(datagrams int, err error) {
	c.dropped.Add(uint64(datagrams))
	if errors.Is(err, syscall.EMSGSIZE) {
		c.tooLarge.Add(uint64(datagrams))
	}
}

// countRefusal reports whether err is an ICMP answer of the backend's host, and counts it.
func (c *counters) countRefusal(err error) bool {
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return false
	}
	c.refused.Add(1)
	return true
}
