package fallback

import (
	"sync/atomic"
	"time"
)

// A process may end at any moment, and its kernel then ends its connections in order: a transfer that was cut short would
// look complete. So the connections of a pair have SO_LINGER of zero, with which the kernel resets them, from their start
// and while bytes are under way. A sweep takes it off pairs that have come to rest, whose peers have all there is.

// sweepInterval is the time between sweeps. A pair costs a few system calls in each until it has come to rest, none after
// it, and an atomic operation for each read.
const sweepInterval = time.Second

// motion says whether bytes of a pair are under way.
type motion struct {
	reads  atomic.Uint64 // that brought bytes, in both directions
	resets atomic.Bool   // the end of the process resets the pair's connections; changed with Engine.mu held
	seen   uint64        // reads at the last sweep; with Engine.mu held
}

// stir notes that bytes are under way. It comes before they are written.
func (p *pair) stir() {
	p.motion.reads.Add(1)
	if !p.motion.resets.Load() {
		p.resetAtExit()
	}
}

// resetAtExit has the end of the process reset the pair, until a sweep finds it at rest.
func (p *pair) resetAtExit() {
	e := p.port.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.open == nil || p.motion.resets.Swap(true) {
		return
	}
	p.linger(0)
	if len(e.moving) == 0 {
		e.sweeps = time.AfterFunc(sweepInterval, e.sweep)
	}
	e.moving[p] = struct{}{}
}

// enter is for a pair that begins.
func (p *pair) enter() {
	p.port.engine.mu.Lock()
	defer p.port.engine.mu.Unlock()
	p.port.engine.pairs[p] = struct{}{}
}

// endInOrder is for a pair that has passed on both ends.
func (p *pair) endInOrder() {
	e := p.port.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.pairs, p)
	delete(e.moving, p)
	p.linger(-1)
}

// linger sets SO_LINGER of both connections. It fails on one that is closed, and needs none.
func (p *pair) linger(seconds int) {
	_ = p.front.SetLinger(seconds)
	_ = p.back.SetLinger(seconds)
}

// sweep lets the pairs end in order that have moved nothing since the last one, and whose peers have acknowledged all.
func (e *Engine) sweep() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.open == nil {
		return // all are being reset
	}
	for p := range e.moving {
		m := &p.motion
		if reads := m.reads.Load(); reads != m.seen {
			m.seen = reads
			continue
		}
		if unacknowledged(p.front.TCPConn)+unacknowledged(p.back.TCPConn) > 0 {
			continue
		}
		p.linger(-1)
		m.resets.Store(false)
		if m.reads.Load() != m.seen { // a direction has moved on that may not have seen it
			m.resets.Store(true)
			p.linger(0)
			continue
		}
		delete(e.moving, p)
	}
	if len(e.moving) > 0 {
		e.sweeps.Reset(sweepInterval)
	}
}
