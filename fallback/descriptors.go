package fallback

import (
	"net/netip"
	"os"
	"sync"
	"time"
)

// reserve is a descriptor that is only held so that there is one when all have run out.
type reserve struct {
	mu     sync.Mutex
	file   *os.File
	closed bool
}

// open takes a descriptor, if there is one to be had and none is held. Without it clients wait for longer.
func (r *reserve) open() {
	if r.file == nil && !r.closed {
		r.file, _ = os.Open(os.DevNull)
	}
}

// release gives it up, and says whether there was one.
func (r *reserve) release() bool {
	if r.file == nil {
		return false
	}
	_ = r.file.Close() // nothing was done with it
	r.file = nil
	return true
}

func (r *reserve) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.release()
	r.closed = true
}

// shed resets clients that wait in the kernel's queue and have done so for as long as a dial may take: the descriptors that
// are missing may be held by connections that wait for these, as when a backend leads back to its own port.
func (p *Port) shed(cause error) {
	const (
		most   = 64                   // in a row
		atOnce = 5 * time.Millisecond // for those that are there: accept would wait for more
	)
	r := &p.engine.reserve
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open()
	if !r.release() {
		return
	}
	defer r.open()
	_ = p.listener.SetDeadline(time.Now().Add(atOnce)) // fails on a listener that is closed, as accept does then
	defer func() { _ = p.listener.SetDeadline(time.Time{}) }()
	for range most {
		conn, err := p.listener.AcceptTCP()
		if err != nil {
			return
		}
		p.acceptFailed(clientOf(conn), cause)
		reset(conn)
	}
}

// acceptFailed counts and reports that accept has failed, or that there is no socket for the backend yet.
func (p *Port) acceptFailed(client netip.AddrPort, err error) {
	p.engine.stats.acceptErrors.Add(1)
	p.engine.options.Load().Report("accept", client, p.backend, err)
}
