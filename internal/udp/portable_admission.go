package udp

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// flow finds the flow of key, or opens it.
func (r *Portable) flow(key portableKey) (*portableFlow, error) {
	if f := r.find(key); f != nil {
		return f, nil
	}
	conn, err := r.dial(key.client)
	if err != nil {
		return nil, err
	}
	f, err := newPortableFlow(key, conn)
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
func (r *Portable) find(key portableKey) *portableFlow {
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
func (r *Portable) dial(client netip.AddrPort) (*net.UDPConn, error) {
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
func (r *Portable) evict() bool {
	r.mu.Lock()
	f := r.flows.evict(r.now())
	r.mu.Unlock()
	if f == nil {
		return false
	}
	r.count.evicted.Add(1)
	r.closeFlow(f)
	return true
}

// admit enters a flow into the table, at another's expense when that is full, and starts its way back. A relay
// that is closing admits none.
func (r *Portable) admit(f *portableFlow) bool {
	if r.full() {
		r.evict()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed() {
		return false
	}
	if r.flows.len() == 0 {
		r.sweeper.Reset(r.options.Timeout)
	}
	r.flows.add(f, r.now())
	r.count.flowsTotal.Add(1)
	r.readers.Go(func() { r.serveReplies(f) })
	return true
}

func (r *Portable) full() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.flows.len() >= r.options.MaxFlows
}

// sweep forgets the flows that have been idle for the timeout, and sets the timer for the next one to come.
func (r *Portable) sweep() {
	now := r.now()
	r.mu.Lock()
	idle := r.flows.expire(now - r.options.Timeout)
	if at, some := r.flows.due(now, r.options.Timeout); some && !r.closed() {
		r.sweeper.Reset(at - now)
	}
	r.mu.Unlock()
	r.count.expired.Add(uint64(len(idle)))
	for _, f := range idle {
		r.closeFlow(f)
	}
}

// abandon forgets a flow whose socket is of no more use, so that the next datagram of its client opens another.
func (r *Portable) abandon(f *portableFlow) {
	r.mu.Lock()
	had := r.flows.remove(f)
	r.mu.Unlock()
	if had {
		r.count.abandoned.Add(1)
	}
	r.closeFlow(f)
}

// closeFlow closes the socket of a flow that has left the table.
func (r *Portable) closeFlow(f *portableFlow) {
	r.countLostBy(f.conn, &f.lost)
	f.close()
}
