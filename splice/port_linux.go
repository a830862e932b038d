package splice

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/portsplice/portsplice/internal/budget"
	"github.com/portsplice/portsplice/internal/dialerror"
	"github.com/portsplice/portsplice/internal/eventloop"
	"github.com/portsplice/portsplice/internal/proxyheader"
	"github.com/portsplice/portsplice/internal/sourceport"
	"github.com/portsplice/portsplice/internal/transparent"
)

// Port is a published port: a listener, the backend that its connections go to, their pairs and what they count. Its
// methods may be called from any goroutine, also from Options.Report.
type Port struct {
	engine   *Engine
	listener listener
	settings atomic.Pointer[settings]
	aborted  atomic.Bool  // connections that are on their way to a loop end there
	away     atomic.Int64 // connections that are on their way to a loop, or were accepted for one

	descriptors budget.Share // of its pairs

	listing sync.Mutex // one look at the pairs at a time

	mu     sync.Mutex
	closed bool
	shares []*share // its parts on the loops
	past   Stats    // what parts have counted that are no more
	summed Stats    // the same, of what the engine has been given
}

// settings are what a port's connections are made with. They are exchanged as a whole, while connections live.
type settings struct {
	Options
	backend netip.AddrPort
	address sockaddr            // the backend's, for connect
	local   func() bool         // says whether the backend's address is one of this host's; the first connection asks
	sources *sourceport.Backend // chooses source ports
	path    *transparent.Path   // says which source addresses clients have; nil: this host's
}

// newSettings checks them. What it gives is released by sources.Release.
func newSettings(backend netip.AddrPort, o Options) (*settings, error) {
	address, err := newSockaddr(backend)
	if err != nil {
		return nil, err
	}
	if backend.Port() == 0 {
		return nil, fmt.Errorf("%v is not an address and port to connect to", backend)
	}
	if err := proxyheader.CheckVersion(o.ProxyProtocol); err != nil {
		return nil, err
	}
	var path *transparent.Path
	if o.Transparent {
		if o.Dial != nil {
			return nil, errors.New("transparent: Options.Dial opens the sockets")
		}
		if path, err = transparent.To(backend.Addr()); err != nil {
			return nil, fmt.Errorf("transparent: %w", err)
		}
	}
	return &settings{
		Options: o.withDefaults(),
		backend: backend,
		address: address,
		local:   sync.OnceValue(func() bool { return isLocal(backend.Addr()) }),
		sources: sourceport.For(backend),
		path:    path,
	}, nil
}

// SetBackend has new connections go to another backend. Those that exist stay where they are.
func (p *Port) SetBackend(backend netip.AddrPort) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.set(backend, p.settings.Load().Options)
}

// SetOptions has new connections made with other options. Those that exist follow Policy, and keep the rest.
func (p *Port) SetOptions(o Options) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.set(p.settings.Load().backend, o)
}

// set exchanges the settings; p.mu is held.
func (p *Port) set(backend netip.AddrPort, o Options) error {
	if p.closed {
		return errClosed
	}
	next, err := newSettings(backend, o)
	if err != nil {
		return fmt.Errorf("splice: %w", err)
	}
	p.settings.Swap(next).sources.Release()
	p.listener.setOptions(next.KeepAlive)
	return nil
}

// Backend is where new connections go.
func (p *Port) Backend() netip.AddrPort { return p.settings.Load().backend }

func (p *Port) report(op string, client netip.AddrPort, err error) {
	s := p.settings.Load()
	s.Report(op, client, s.backend, err)
}

// Close stops accepting and closes the listener. Connections that exist go on. Closing again does nothing.
func (p *Port) Close() error {
	p.close()
	p.engine.forget(p)
	return nil
}

func (p *Port) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	p.listener.close()
	p.settings.Load().sources.Release()
	for _, s := range p.shares { // those without pairs end
		s.loop.Post(s.leave)
	}
}

// Abort closes the port and resets its connections. They are gone soon after it returns.
func (p *Port) Abort() error {
	err := p.Close()
	p.aborted.Store(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.shares {
		s.loop.Post(s.abort)
	}
	return err
}

// Stats are the counters of the port. A connection that goes from one loop to another is active for the whole time.
func (p *Port) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	sum := p.past.plus(p.summed)
	sum.Active += uint64(p.away.Load()) // before the parts: what is accepted meanwhile lands there first
	for _, s := range p.shares {
		sum = sum.plus(s.count.read())
	}
	sum.AcceptErrors += p.listener.errors.Load()
	return sum
}

// drop takes a share out that has ended.
func (p *Port) drop(s *share) {
	defer p.engine.forget(p)
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.shares {
		if other == s {
			p.shares = append(p.shares[:i:i], p.shares[i+1:]...)
			p.past = p.past.plus(s.count.read())
		}
	}
}

// end gives what the port has counted, for good, if it is closed and its last connection is gone.
func (p *Port) end() (counted Stats, ended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed || len(p.shares) > 0 || p.away.Load() > 0 {
		return Stats{}, false
	}
	counted, p.past = p.past, Stats{}
	counted.AcceptErrors += p.listener.errors.Swap(0)
	p.summed = p.summed.plus(counted)
	return counted, true
}

// depart notes that a connection leaves for another loop. It is called before the connection is taken from where it is.
func (p *Port) depart() {
	p.mu.Lock() // whoever sums up finds it where it is, or away
	defer p.mu.Unlock()
	p.away.Add(1)
}

// land notes that it has arrived.
func (p *Port) land() {
	p.mu.Lock()
	p.away.Add(-1)
	p.mu.Unlock()
	if p.isClosed() { // or whoever closes the port looks after this
		p.engine.forget(p)
	}
}

// send has a connection that departs go on by arrive, on another loop. It reports false when that has ended, and then
// calls stay.
func (p *Port) send(to *eventloop.Loop, arrive func(*loop), stay func()) bool {
	if to.Post(func() { arrive(p.engine.on(to)); p.land() }) {
		return true
	}
	stay()
	p.land()
	return false
}

// share is a port's part on one loop: its pairs there and what they count.
type share struct {
	port  *Port
	loop  *loop
	first *pair
	next  *pair // that Clients looks at, while it does
	count counters
}

// share gives the port's part on the loop.
func (l *loop) share(p *Port) *share {
	s := l.shares[p]
	if s == nil {
		s = &share{port: p, loop: l}
		l.shares[p] = s
		p.mu.Lock()
		p.shares = append(p.shares, s)
		p.mu.Unlock()
	}
	return s
}

// add takes a pair in, which is in no share.
func (s *share) add(p *pair) {
	p.share, p.previous, p.next = s, nil, s.first
	if s.first != nil {
		s.first.previous = p
	}
	s.first = p
	p.young = true
	if l := s.loop; !l.youth.Set() {
		l.SetTimer(&l.youth, (*grow)(l), l.Now()+youth)
	}
	add(&s.count.active, 1)
}

// remove takes a pair out. It keeps the pointer to the share.
func (s *share) remove(p *pair) {
	if p.previous == nil {
		s.first = p.next
	} else {
		p.previous.next = p.next
	}
	if p.next != nil {
		p.next.previous = p.previous
	}
	if s.next == p {
		s.next = p.next
	}
	p.previous, p.next = nil, nil
	add(&s.count.active, -1)
	s.leave()
}

// leave ends the share of a port that is closed, if it has no pairs.
func (s *share) leave() {
	if s.first == nil && s.port.isClosed() {
		s.end()
	}
}

// end has the port keep what a share without pairs has counted, and no more of it.
func (s *share) end() {
	if s.loop.shares[s.port] == s {
		delete(s.loop.shares, s.port)
		s.port.drop(s)
	}
}

func (p *Port) isClosed() bool { return p.listener.closed.Load() }

// abort resets all pairs.
func (s *share) abort() {
	for s.first != nil {
		s.first.reset()
	}
}

// counters are written by their loop alone and read from anywhere.
type counters struct {
	accepted, active, aborted, pipesRefused, sourcePorts, headersRefused, sourceRefused atomic.Uint64

	dialErrors      dialerror.Counters
	spliced, copied [2]atomic.Uint64 // bytes, by the side that they came from
}

// add adds to a counter that nobody else writes to, without a locked instruction.
func add(c *atomic.Uint64, n int) { c.Store(c.Load() + uint64(n)) }

func (c *counters) read() Stats {
	s := Stats{
		Accepted:       c.accepted.Load(),
		Active:         c.active.Load(),
		Aborted:        c.aborted.Load(),
		PipesRefused:   c.pipesRefused.Load(),
		SourcePorts:    c.sourcePorts.Load(),
		Counts:         c.dialErrors.Read(),
		HeadersRefused: c.headersRefused.Load(),
		SourceRefused:  c.sourceRefused.Load(),
	}
	spliced, copied := [...]uint64{c.spliced[front].Load(), c.spliced[back].Load()},
		[...]uint64{c.copied[front].Load(), c.copied[back].Load()}
	s.Spliced, s.Copied = spliced[front]+spliced[back], copied[front]+copied[back]
	s.BytesIn, s.BytesOut = spliced[front]+copied[front], spliced[back]+copied[back]
	return s
}

// plus adds the counters of two ports, or of two parts of one.
func (s Stats) plus(o Stats) Stats {
	s.Accepted += o.Accepted
	s.Active += o.Active
	s.AcceptErrors += o.AcceptErrors
	s.Counts = dialerror.Sum(s.Counts, o.Counts)
	s.Aborted += o.Aborted
	s.BytesIn += o.BytesIn
	s.BytesOut += o.BytesOut
	s.Spliced += o.Spliced
	s.Copied += o.Copied
	s.PipesRefused += o.PipesRefused
	s.SourcePorts += o.SourcePorts
	s.HeadersRefused += o.HeadersRefused
	s.SourceRefused += o.SourceRefused
	return s
}
