package udp

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// dialAttempts bounds what one new client may cost the others when descriptors have run out: each attempt but the
// last evicts a flow. One is enough unless another relay of this process takes the descriptor it freed.
const dialAttempts = 3

// flow finds the flow of key, or opens it.
func (r *Relay) flow(key flowKey) (*flow, error) {
	if f := r.find(key); f != nil {
		return f, nil
	}
	conn, err := r.dial(key.client)
	if err != nil {
		return nil, err
	}
	f, err := newFlow(key, conn)
	if err != nil {
		return nil, err
	}
	if !r.admit(f) {
		f.close()
		return nil, net.ErrClosed
	}
	return f, nil
}

// find refreshes the flow before the lock is left, so that the sweeper cannot close it under the datagram.
func (r *Relay) find(key flowKey) *flow {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.flows.find(key)
	if f != nil {
		f.touch(now)
	}
	return f
}

// dial opens the backend socket of a new flow. When descriptors, or ports, have run out an older flow gives up its
// own.
func (r *Relay) dial(client netip.AddrPort) (*net.UDPConn, error) {
	for attempt := 1; ; attempt++ {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(r.backend))
		if !exhausted(err) || attempt == dialAttempts || !r.evict() {
			return conn, err
		}
		r.fail("make room for a new client", client, err)
	}
}

// exhausted tells whether a flow less would help: no descriptor left in the process or the system (EMFILE, ENFILE),
// or no ephemeral port (EAGAIN from Linux's connect, EADDRNOTAVAIL elsewhere).
func exhausted(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.EAGAIN, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// evict forgets the flow that is missed least, and reports whether there was one.
func (r *Relay) evict() bool {
	r.mu.Lock()
	f := r.flows.evict(r.now())
	r.mu.Unlock()
	if f == nil {
		return false
	}
	r.count.evicted.Add(1)
	f.close()
	return true
}

// admit enters a flow into the table, at another's expense when that is full, and starts its way back. A relay
// that is closing admits none.
func (r *Relay) admit(f *flow) bool {
	if r.full() {
		r.evict()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed() {
		return false
	}
	if r.flows.len() == 0 {
		r.sweeper.Reset(r.timeout)
	}
	r.flows.add(f, r.now())
	r.count.flows.Add(1)
	r.readers.Go(func() { r.serveReplies(f) })
	return true
}

func (r *Relay) full() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.flows.len() >= r.maxFlows
}

// sweep forgets the flows that have been idle for the timeout, and sets the timer for the next one to come.
func (r *Relay) sweep() {
	now := r.now()
	r.mu.Lock()
	idle := r.flows.expire(now - r.timeout)
	if seen, some := r.flows.oldest(); some && !r.closed() {
		// Flows that expire shortly after one another share a sweep: at most eight per timeout.
		r.sweeper.Reset(max(seen+r.timeout-now, r.timeout/8))
	}
	r.mu.Unlock()
	r.count.expired.Add(uint64(len(idle)))
	for _, f := range idle {
		f.close()
	}
}

// abandon forgets a flow whose socket is of no more use, so that the next datagram of its client opens another.
func (r *Relay) abandon(f *flow) {
	r.mu.Lock()
	had := r.flows.remove(f)
	r.mu.Unlock()
	if had {
		r.count.abandoned.Add(1)
	}
	f.close()
}
