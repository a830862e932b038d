package fallback

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/dialerror"
	"github.com/portsplice/portsplice/internal/proxyheader"
)

// DefaultDialTimeout bounds the dial of a backend when Options.DialTimeout is zero.
const DefaultDialTimeout = 10 * time.Second

// Options are the settings of an Engine. The zero value is useful.
type Options struct {
	// DialTimeout bounds the time from accept to an established backend connection, that for the client's own header
	// (AcceptProxyProtocol) included, and how long clients wait in the kernel's queue for descriptors that have
	// run out, or for an accept that is forbidden. Zero means DefaultDialTimeout.
	DialTimeout time.Duration

	// KeepAlive says when a peer that vanished is noticed, on both legs: after Idle without a sign of it, by Count
	// probes without an answer, each Interval after the one before. It is always on. Zero fields mean what the Go
	// standard library sets: 15 s, 9 probes, 15 s. While data is under way the kernel does not probe but retransmits;
	// since Linux 6.15 it does so every Interval at least, 15 times, which takes about as long (before, a quarter of an
	// hour). A peer that answers but does not read is never given up.
	KeepAlive net.KeepAliveConfig

	// ProxyProtocol has each backend connection begin with a header that tells the client's address and the one that it
	// connected to, of version 1 or 2 of the PROXY protocol. Zero is no header. Its bytes are counted as copied.
	ProxyProtocol uint8

	// AcceptProxyProtocol are the proxies whose connections begin with such a header. It is taken off, and what it tells
	// stands for the client from then on (the TLVs of version 2 are dropped); a connection without it is reset. Other
	// clients' bytes are not looked at. Masked prefixes of IPv4 or IPv6, without zones.
	AcceptProxyProtocol []netip.Prefix

	// Report is told of every failure: the operation ("accept", "proxy header", "dial", "relay"), the client where there
	// is one, the backend, and the cause. It may be called by several goroutines at once and must not block. Nil: failures
	// are only counted.
	Report func(op string, client, backend netip.AddrPort, err error)

	// Ended is told why, if a port ends by itself: its listener is of no more use, such as one that was shut down, or accept
	// has been forbidden (EPERM, EACCES) for the dial timeout. Connections that exist go on. It is called as Report is. Nil:
	// nobody is told.
	Ended func(error)

	// Observe is told of every connection when it is accepted, when its backend is connected and when it has ended: who
	// ended it and why, and how many bytes it has carried. It is called as Report is. Nil: nobody is told.
	Observe func(Connection)
}

// Connection is what Options.Observe is told of.
type Connection = connection.Connection

// Stats are the counters of an Engine since its start.
type Stats struct {
	Accepted     uint64 // connections accepted
	Active       uint64 // pairs that exist now
	AcceptErrors uint64 // calls of accept that failed, or of socket for a backend while descriptors had run out
	Aborted      uint64 // pairs that ended by a reset or another failure of a leg
	BytesIn      uint64 // bytes written to backends
	BytesOut     uint64 // bytes written to clients
	Copied       uint64 // both

	dialerror.Counts // of backends that refused, could not be reached or did not answer in time; their clients were reset

	HeadersRefused uint64 // clients that were reset because their PROXY header was missing or wrong
}

// String gives the counters as "name=value" words.
func (s Stats) String() string {
	return fmt.Sprintf("accepted=%d active=%d accept-errors=%d %v "+
		"aborted=%d bytes-in=%d bytes-out=%d spliced=0 copied=%d headers-refused=%d",
		s.Accepted, s.Active, s.AcceptErrors, s.Counts, s.Aborted, s.BytesIn, s.BytesOut, s.Copied, s.HeadersRefused)
}

// Engine relays any number of ports. Its methods may be called from any goroutine.
type Engine struct {
	options atomic.Pointer[Options] // with their defaults; exchanged as a whole
	stats   struct {
		accepted, active, acceptErrors, aborted, headersRefused atomic.Uint64

		dialErrors      dialerror.Counters
		toBack, toFront atomic.Uint64 // bytes
	}
	closing context.Context // done when the engine closes
	cancel  context.CancelFunc
	running sync.WaitGroup
	reserve reserve

	socketError func() error // of sockets for backends; tests have some that fail

	mu     sync.Mutex
	open   map[io.Closer]struct{} // listeners and connections; nil once closed
	pairs  map[*pair]struct{}     // that relay
	moving map[*pair]struct{}     // of them, those that the end of the process resets
	sweeps *time.Timer            // runs while there are any
}

// Port is a published port.
type Port struct {
	engine   *Engine
	listener listener
	backend  netip.AddrPort
}

// listener is a *net.TCPListener; tests have one that fails.
type listener interface {
	AcceptTCP() (*net.TCPConn, error)
	SetDeadline(time.Time) error
	io.Closer
}

func (o Options) withDefaults() *Options {
	if o.DialTimeout <= 0 {
		o.DialTimeout = DefaultDialTimeout
	}
	if o.Report == nil {
		o.Report = func(string, netip.AddrPort, netip.AddrPort, error) {}
	}
	if o.Observe == nil {
		o.Observe = func(Connection) {}
	}
	o.KeepAlive.Enable = o.KeepAlive != (net.KeepAliveConfig{}) // and otherwise package net does it
	return &o
}

// New makes an engine with no ports.
func New(o Options) *Engine {
	e := &Engine{
		open: make(map[io.Closer]struct{}), pairs: make(map[*pair]struct{}), moving: make(map[*pair]struct{}),
		socketError: func() error { return nil },
	}
	e.options.Store(o.withDefaults())
	e.reserve.open()
	e.closing, e.cancel = context.WithCancel(context.Background())
	return e
}

// SetOptions has new connections made with other options; those that exist keep theirs, but for Report and Observe.
func (e *Engine) SetOptions(o Options) error {
	if err := proxyheader.CheckVersion(o.ProxyProtocol); err != nil {
		return fmt.Errorf("fallback: %w", err)
	}
	e.options.Store(o.withDefaults())
	return nil
}

// Add serves a port: connections to listener go to backend. The engine owns the listener from then on.
func (e *Engine) Add(listener *net.TCPListener, backend netip.AddrPort) (*Port, error) {
	return e.add(listener, backend)
}

func (e *Engine) add(listener listener, backend netip.AddrPort) (*Port, error) {
	p := &Port{engine: e, listener: listener, backend: backend}
	err := proxyheader.CheckVersion(e.options.Load().ProxyProtocol)
	if err == nil && !e.own(listener) {
		err = net.ErrClosed
	}
	if err != nil {
		_ = listener.Close() // nobody was served by it
		return nil, fmt.Errorf("fallback: %w", err)
	}
	e.running.Go(p.serve)
	return p, nil
}

// Close stops accepting on the port. Connections that exist go on.
func (p *Port) Close() error {
	p.engine.disown(p.listener)
	if err := p.listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Stats reads the counters.
func (e *Engine) Stats() Stats {
	count := &e.stats
	s := Stats{
		Accepted:       count.accepted.Load(),
		Active:         count.active.Load(),
		AcceptErrors:   count.acceptErrors.Load(),
		Aborted:        count.aborted.Load(),
		BytesIn:        count.toBack.Load(),
		BytesOut:       count.toFront.Load(),
		Counts:         count.dialErrors.Read(),
		HeadersRefused: count.headersRefused.Load(),
	}
	s.Copied = s.BytesIn + s.BytesOut
	return s
}

// Client is a connection, as Engine.Clients tells of it.
type Client = connection.Traffic

// Clients gives the connections that have moved the most bytes, most of them at the most, the busiest first.
func (e *Engine) Clients(most int) []Client {
	e.mu.Lock()
	pairs := slices.Collect(maps.Keys(e.pairs))
	e.mu.Unlock()
	b := connection.Busiest{Most: most}
	for _, p := range pairs {
		b.Add(Client{Address: p.client.Client, Age: time.Since(p.began),
			BytesIn: p.back.taken.Load(), BytesOut: p.front.taken.Load()})
	}
	return b.All
}

// Close closes all ports and connections and returns when their goroutines have ended. What was in flight is
// lost.
func (e *Engine) Close() error {
	e.mu.Lock()
	open := e.open
	e.open = nil
	if e.sweeps != nil {
		e.sweeps.Stop()
	}
	e.mu.Unlock()
	if open == nil {
		return nil
	}
	e.cancel()
	for c := range open {
		if conn, ok := c.(*net.TCPConn); ok {
			reset(conn) // an orderly end would make what is cut short look complete
			continue
		}
		_ = c.Close() // its port may have closed it
	}
	e.running.Wait()
	e.reserve.close()
	return nil
}

// own remembers what Close has to close; false means that the engine is closed already.
func (e *Engine) own(c io.Closer) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.open == nil {
		return false
	}
	e.open[c] = struct{}{}
	return true
}

func (e *Engine) disown(c io.Closer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.open, c)
}
