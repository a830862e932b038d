package sourceport

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	// poolPart: a pool is this part of the range.
	poolPart = 2

	// A port that was given back is left alone for so long, or until so many others (or a quarter of all) have been given
	// back after it. So what is still on its way to the one who had it does not reach the next. A resolver that has to ask
	// others takes a second; the number bounds what is kept from use when ports are short.
	rest       = time.Second
	restBehind = 64
)

// Pool gives the source ports of sockets that have one each for as long as they live, whatever they are connected to,
// as those of UDP. It is the second half of the host's range, one after the other in an order of its own, and then what
// has been given back, longest ago first. Whether a port is free only bind(2) tells: other processes have the same
// half. Its methods may be called from any goroutine.
type Pool struct {
	read func(now time.Time) ports
	now  func() time.Time

	mu     sync.Mutex
	of     ports
	next   int // place of the first that was never given, and from each to the next
	stride int
	unused int     // how many there are
	back   resting // what was given back
	taken  resting // what others had when it was tried
}

// resting are ports that are left alone, and since when, longest first.
type resting []struct {
	port  uint16
	since time.Time
}

func (r *resting) add(port uint16, now time.Time) {
	*r = append(*r, struct {
		port  uint16
		since time.Time
	}{port, now})
}

func (r *resting) remove() (port uint16) {
	port = (*r)[0].port
	*r = (*r)[1:]
	return port
}

// rested says whether the first has rested for long enough.
func (r resting) rested(now time.Time) bool { return len(r) > 0 && now.Sub(r[0].since) >= rest }

// UDP is this process's pool.
var UDP = &Pool{read: usable, now: time.Now}

// NewPool makes one of the range from low to high, whatever the host's is.
func NewPool(low, high uint16) *Pool {
	fixed := newPorts(low, high, nil)
	return &Pool{read: func(time.Time) ports { return fixed }, now: time.Now}
}

// Size is how many ports there are, but for those that are reserved, and of how many that the kernel chooses from.
// Zero: the system does not tell, and no port is ever given.
func (p *Pool) Size() (size, of int) {
	all := p.read(p.now())
	return all.part(poolPart).size, all.all
}

// Take gives a port: one that has rested, or if need be the one that has rested longest of those that were given back.
// Zero: there is none. Return gives it back, or Taken if it turned out not to be free.
func (p *Pool) Take(need bool) uint16 {
	now := p.now()
	part := p.read(now).part(poolPart)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.of.equal(part) {
		p.begin(part)
	}
	if need && len(p.back) > 0 {
		return p.back.remove()
	}
	for p.unused > 0 {
		place := p.next
		p.next = (p.next + p.stride) % p.of.size
		p.unused--
		if port, free := p.of.port(place); free {
			return port
		}
	}
	switch {
	case p.back.rested(now) || len(p.back) > max(1, min(restBehind, p.of.size/4)):
		return p.back.remove()
	case p.taken.rested(now):
		return p.taken.remove()
	default:
		return 0
	}
}

// Return gives a port back whose socket is closed. Zero, as Take gives, and what is not of the range any more are ignored.
func (p *Pool) Return(port uint16) { p.put(&p.back, port) }

// Taken tells that somebody else has a port.
func (p *Pool) Taken(port uint16) { p.put(&p.taken, port) }

func (p *Pool) put(r *resting, port uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of.has(port) {
		r.add(port, p.now())
	}
}

// begin has all ports be unused. Each process begins elsewhere, and strides by another step, so that it does not meet
// what others hold all in a row.
func (p *Pool) begin(of ports) {
	p.of, p.unused, p.back, p.taken = of, of.size, nil, nil
	if of.size < 2 {
		p.next, p.stride = 0, 0
		return
	}
	p.next, p.stride = rand.IntN(of.size), 1+rand.IntN(of.size-1)
	for commonDivisor(p.stride, of.size) > 1 { // it would come back before it has seen all
		p.stride++
	}
}

func commonDivisor(a, b int) int {
	for b > 0 {
		a, b = b, a%b
	}
	return a
}

// part is the last part of a range, of which p is one.
func (p ports) part(divisor int) ports {
	end := int(p.first) + p.size
	p.size = p.all / divisor
	p.first = uint16(end - p.size)
	return p
}

func (p ports) equal(q ports) bool {
	return p.first == q.first && p.size == q.size && slices.Equal(p.reserved, q.reserved)
}

func (p ports) has(port uint16) bool {
	return port != 0 && int(port) >= int(p.first) && int(port) < int(p.first)+p.size
}
