package sourceport

import (
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// window is how long TIME_WAIT lasts (TCP_TIMEWAIT_LEN in include/net/tcp.h).
	window = 60 * time.Second

	// manyPart: as many dials in a window as this part of the range are many. There a search still finds a port at its
	// second try at the latest, on average.
	manyPart = 7
)

// Backend chooses the source ports of the connections to one address. Its methods may be called from any goroutine.
type Backend struct {
	address netip.AddrPort
	users   int // guarded by backends

	reuse atomic.Bool

	mu    sync.Mutex
	since time.Time // when the window began
	dials int       // in it
	bound bool      // there were many in the last window, or are in this one
	next  int       // place of the port that has rested longest

	source netip.Addr // what connections come from; zero: not known
}

// backends are those that are in use in this process.
var backends struct {
	sync.Mutex
	byAddress map[netip.AddrPort]*Backend
}

// For gives what chooses the ports towards an address, the same for all who ask. Release gives it back.
func For(address netip.AddrPort) *Backend {
	backends.Lock()
	defer backends.Unlock()
	b := backends.byAddress[address]
	if b == nil {
		if backends.byAddress == nil {
			backends.byAddress = make(map[netip.AddrPort]*Backend)
		}
		b = &Backend{address: address, next: os.Getpid() % 4096 * 4001} // apart from another process with this backend
		backends.byAddress[address] = b
	}
	b.users++
	return b
}

// Release is called once by whoever called For.
func (b *Backend) Release() {
	backends.Lock()
	defer backends.Unlock()
	if b.users--; b.users == 0 {
		delete(backends.byAddress, b.address)
	}
}

// Dial counts a connection and says whether its socket is to be bound: there have been many lately.
func (b *Backend) Dial() bool {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if age := now.Sub(b.since); age >= window {
		b.bound = age < 2*window && b.dials >= usable(now).many()
		b.reuse.Store(b.bound)
		b.since, b.dials = now, 0
	}
	b.dials++
	if !b.bound && b.dials&63 == 0 { // the range is looked at now and then
		many := usable(now).many()
		b.bound = b.dials >= many
		b.reuse.Store(b.dials >= many/4)
	}
	return b.bound
}

// Reuse says whether the next connection's socket is to have SO_REUSEADDR, so that it may be bound, and its port be bound
// by another while it is in TIME_WAIT. That is so before there are many, so that few sockets without it are in the way then.
func (b *Backend) Reuse() bool { return b.reuse.Load() }

// Exhausted notes that the kernel has found no port: from now on they are bound.
func (b *Backend) Exhausted() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bound = true
	b.reuse.Store(true)
	b.dials = max(b.dials, usable(time.Now()).many()) // and in the next window
}

// Next gives the address and port to bind: the port is the one that has rested longest. The address is unspecified as long
// as it is not known, and the port zero when there is none to bind.
func (b *Backend) Next() netip.AddrPort {
	p := usable(time.Now())
	b.mu.Lock()
	defer b.mu.Unlock()
	for range p.size {
		b.next = (b.next + 1) % p.size
		if port, free := p.port(b.next); free {
			return netip.AddrPortFrom(b.source, port)
		}
	}
	return netip.AddrPortFrom(b.source, 0)
}

// KnowsSource says whether it is known which address connections come from.
func (b *Backend) KnowsSource() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.source.IsValid()
}

// SetSource tells which address the kernel has chosen for a connection; the zero one if it is not of this host any more.
func (b *Backend) SetSource(a netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.source = a
}

// many is how many dials in a window are many.
func (p ports) many() int { return max(1, p.all/manyPart) }
