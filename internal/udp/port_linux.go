package udp

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/budget"
	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/eventloop"
	"github.com/portsplice/portsplice/internal/sourceport"
	"github.com/portsplice/portsplice/internal/transparent"
	"github.com/portsplice/portsplice/internal/udp/flows"
)

// Port is a published port whose datagrams are carried by a group of event loops. Its frontend and its table of flows
// are on one of them, its home; what the backend answers may come by others. Its methods may be called from any
// goroutine, and but for Clients and Close also from Report.
type Port struct {
	first       *eventloop.Loop // of the group, which never ends before the group does
	frontend    int
	family      uint16 // the frontend's
	kernel      kernel
	numbers     *sourceport.Pool
	now         func(*eventloop.Loop) time.Duration
	setting     sync.Mutex // one exchange of the settings at a time
	settings    atomic.Pointer[settings]
	count       counters
	descriptors budget.Share  // of the flows
	lost        atomic.Uint32 // datagrams that the frontend had no room for, as last told; Stats asks, too

	// home is whose goroutine may touch what follows. It is nil until the loop has first heard of the port, and while
	// that is on its way to another loop.
	home     atomic.Pointer[lane]
	handle   eventloop.Handle // the frontend's
	events   uint32           // of the frontend, in this turn
	flows    flows.Table[flowKey, *flow]
	depth    depth   // of the frontend
	pace     backoff // of a frontend that fails
	resuming eventloop.Timer
	sweeping eventloop.Timer
	devices  map[uint32]bool // whether they cut blocks, by index

	mu      sync.Mutex
	loop    *eventloop.Loop // of home; nil while the port is on its way to another
	pending []func()        // what is to be done at home then
	open    bool            // the frontend

	closing sync.Once
	refs    atomic.Int32  // the port's own, while it is open, and one for each flow: the frontend is open until then
	done    chan struct{} // closed when it is closed
}

// errClosed is what a closed port answers.
var errClosed = errors.New("udp: closed")

// settings are what a port's flows are opened with. They are exchanged as a whole, while flows live: each keeps its own.
type settings struct {
	Options
	port    *Port
	backend netip.AddrPort
	family  int               // the backend's
	address unix.Sockaddr     // the backend's, for connect
	path    *transparent.Path // says which source addresses clients have; nil: this host's
	prober  prober            // of the way to the backend; it changes, and the goroutine of the port's home alone uses it
}

// newSettings checks them.
func newSettings(p *Port, backend netip.AddrPort, o Options) (_ *settings, err error) {
	s := &settings{port: p}
	if s.backend, err = checkBackend(backend); err != nil {
		return nil, err
	}
	if s.family, s.address, err = encode(s.backend); err != nil {
		return nil, fmt.Errorf("udp: relay to %v: %w", s.backend, err)
	}
	if s.Options, err = o.withDefaults(); err != nil {
		return nil, err
	}
	if o.Transparent {
		if s.path, err = transparent.To(s.backend.Addr()); err != nil {
			return nil, fmt.Errorf("udp: transparent: %w", err)
		}
	}
	return s, nil
}

// New begins to relay from frontend, a bound socket, to backend. The port owns the descriptor from then on, also when
// New fails. It is to be closed before the group is.
func New(group *eventloop.Group, frontend int, backend netip.AddrPort, o Options) (*Port, error) {
	return newPort(group, frontend, backend, o, linux{}, (*eventloop.Loop).Now)
}

func newPort(group *eventloop.Group, frontend int, backend netip.AddrPort, o Options, k kernel,
	now func(*eventloop.Loop) time.Duration) (*Port, error) {
	p := &Port{
		first:    group.First(),
		frontend: frontend,
		kernel:   k,
		numbers:  sourceport.UDP,
		now:      now,
		flows:    flows.New[flowKey, *flow](),
		done:     make(chan struct{}),
	}
	p.descriptors.Of(o.Budget)
	if err := p.start(backend, o); err != nil {
		closeFD(frontend)
		return nil, err
	}
	return p, nil
}

func (p *Port) start(backend netip.AddrPort, o Options) error {
	s, err := newSettings(p, backend, o)
	if err != nil {
		return err
	}
	p.settings.Store(s)
	if err = p.ready(); err != nil {
		return fmt.Errorf("udp: relay to %v: %w", s.backend, err)
	}
	p.mu.Lock() // until the loop may hear of it
	defer p.mu.Unlock()
	p.open = true
	p.refs.Store(1)
	p.loop = p.first
	p.handle, err = p.loop.Listen(p.frontend, unix.EPOLLIN, (*newcomer)(p))
	if err != nil {
		return fmt.Errorf("udp: relay to %v: %w", s.backend, err)
	}
	return nil
}

// ready makes the frontend what the port expects.
func (p *Port) ready() (err error) {
	if p.family, err = familyOf(p.frontend); err != nil {
		return err
	}
	if err := readyFrontend(p.frontend); err != nil {
		return err
	}
	tune(p.frontend, frontendBuffer, frontendSendBuffer)
	return nil
}

// newcomer is a port that its first loop has not heard of. Any goroutine may register it, and idle as it is it costs
// the loop nothing; with its first datagram it becomes a handler like others, whose load is counted and can be moved.
type newcomer Port

// Ready has the port settle. The datagram is still there when the loop looks again.
func (n *newcomer) Ready(uint32) {
	p := (*Port)(n)
	p.mu.Lock()
	loop := p.loop
	p.mu.Unlock()
	p.settle(loop)
}

// settle makes a newcomer's loop its home.
func (p *Port) settle(loop *eventloop.Loop) {
	if p.home.Load() == nil {
		loop.Unlisten(p.handle, p.frontend)
		p.handle = eventloop.Handle{}
		p.arrive(loop)
	}
}

// arrive makes a loop the port's home, on that loop's goroutine.
func (p *Port) arrive(loop *eventloop.Loop) {
	l := laneOf(loop)
	p.mu.Lock()
	p.loop = loop
	p.home.Store(l)
	p.mu.Unlock()
	if p.watch(); p.home.Load() != l {
		return // it has gone on to the first loop, and takes with it what is pending
	}
	p.mu.Lock()
	pending := p.pending
	p.pending = nil
	p.mu.Unlock()
	if p.flows.Len() > 0 {
		p.sweepAt(p.now(loop)) // which looks when it is due
	}
	for _, do := range pending {
		do()
	}
}

// Move takes the port to another loop: its frontend and its table. Its flows go on where they are.
func (p *Port) Move(to *eventloop.Loop) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.resuming.Set() || !p.open || !to.Post(func() { p.arrive(to) }) {
		return false
	}
	from := p.loop
	from.Unwatch(p.handle, p.frontend)
	p.handle = eventloop.Handle{}
	from.StopTimer(&p.sweeping)
	p.loop = nil
	p.home.Store(nil)
	return true
}

// atHome has do run on the goroutine of the port's home. It reports false if that has ended, with its group.
func (p *Port) atHome(do func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	loop := p.loop
	if loop == nil {
		p.pending = append(p.pending, do)
		return true
	}
	return loop.Post(func() {
		p.mu.Lock()
		here := p.loop == loop
		p.mu.Unlock()
		if !here {
			p.atHome(do)
			return
		}
		p.settle(loop)
		do()
	})
}

// SetBackend has new flows go to another backend, which may be of another family. Those that exist stay where they are: a
// client that has one goes on with the backend that it knows until that flow is forgotten.
func (p *Port) SetBackend(backend netip.AddrPort) error {
	p.setting.Lock()
	defer p.setting.Unlock()
	return p.set(backend, p.settings.Load().Options)
}

// SetOptions has new flows opened with other options. Those that exist follow Timeout and MaxFlows, and keep the rest.
func (p *Port) SetOptions(o Options) error {
	p.setting.Lock()
	defer p.setting.Unlock()
	if err := p.set(p.settings.Load().backend, o); err != nil {
		return err
	}
	p.atHome(func() {
		for p.flows.Len() > p.settings.Load().MaxFlows && p.evict() {
		}
		if p.flows.Len() > 0 {
			p.sweepAt(p.now(p.home.Load().loop))
		}
	})
	return nil
}

// set exchanges the settings; p.setting is held, and not p.mu, which loops take: it may be long until the host has told its
// addresses.
func (p *Port) set(backend netip.AddrPort, o Options) error {
	next, err := newSettings(p, backend, o)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.open {
		return errClosed
	}
	p.settings.Store(next)
	return nil
}

// Backend is where new flows go.
func (p *Port) Backend() netip.AddrPort { return p.settings.Load().backend }

// report tells of a failure that concerns no flow.
func (p *Port) report(op string, client netip.AddrPort, err error) {
	p.settings.Load().report(op, client, err)
}

func (s *settings) report(op string, client netip.AddrPort, err error) {
	s.Report(op, client, s.backend, err)
}

// sweeper is a port whose flows may have expired.
type sweeper Port

// Ring forgets those that have.
func (s *sweeper) Ring(time.Duration) { (*Port)(s).sweep() }

// sweep forgets the flows that have been idle for the timeout.
func (p *Port) sweep() {
	l, timeout := p.home.Load(), p.settings.Load().Timeout
	now := p.now(l.loop)
	for _, f := range p.flows.Expire(now - timeout) {
		// Its loop has not had its turn since the process stood still, or had it while Expire looked.
		if f.unread(l) || f.SeenSince(now-timeout) {
			p.flows.Add(f, now)
			continue
		}
		p.count.expired.Add(1)
		p.closeFlow(f, connection.Idle)
	}
	if at, some := p.flows.Due(now, timeout); some {
		p.sweepAt(at)
	} else {
		l.loop.StopTimer(&p.sweeping)
	}
}

func (p *Port) sweepAt(at time.Duration) {
	p.home.Load().loop.SetTimer(&p.sweeping, (*sweeper)(p), at)
}

// Stats gives the counts.
func (p *Port) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open {
		p.countLostBy(p.frontend, &p.lost)
	}
	return p.count.read()
}

// Clients gives the flows that have moved the most bytes, most of them at the most, the busiest first. The port's loop is
// asked between its turns, for a bounded number of flows at a time. A client that has asked two of the host's
// addresses is told of by its busier flow. It must not be called from Report.
func (p *Port) Clients(most int) []connection.Traffic {
	b := connection.Busiest{Most: most}
	if p.count.flows.Load() == 0 { // or a port that nobody has used would become a handler
		return nil
	}
	for next, more := 0, true; more; next += connection.LookAt {
		looked := make(chan struct{})
		if !p.atHome(func() {
			now := p.now(p.home.Load().loop)
			for f := range p.flows.Part(next, connection.LookAt) {
				b.Add(f.traffic(f.Key.client.addrPort(), now))
			}
			more = next+connection.LookAt < p.flows.Len()
			close(looked)
		}) {
			break
		}
		<-looked
	}
	return b.All
}

// Close closes the frontend and every flow, and returns when that is done. Answers leave by the frontend, whose address is
// to be free for others: so flows cannot outlive it, as connections do, and there is no Abort. It must not be called from
// Report.
func (p *Port) Close() error {
	p.closing.Do(func() {
		if !p.atHome(func() { p.shut(true) }) {
			p.shut(false)
		}
	})
	<-p.done
	return nil
}

// shut closes everything. The loops may have ended.
func (p *Port) shut(watched bool) {
	if watched {
		loop := p.home.Load().loop
		loop.Unwatch(p.handle, p.frontend)
		loop.StopTimer(&p.sweeping)
		loop.StopTimer(&p.resuming)
	}
	for _, f := range p.flows.Drain() {
		p.closeFlow(f, connection.Stopped)
	}
	p.release()
}

// release gives up what kept the frontend open. Other loops may send on it until their flows are gone.
func (p *Port) release() {
	if p.refs.Add(-1) > 0 {
		return
	}
	p.mu.Lock()
	p.countLostBy(p.frontend, &p.lost)
	p.open = false
	closeFD(p.frontend)
	p.mu.Unlock()
	close(p.done)
}

// countLost counts what a socket had no room for, where a datagram told.
func (p *Port) countLost(before *atomic.Uint32, told ancillary) {
	if told.counted {
		p.count.countLost(before, told.lost)
	}
}

// countLostBy counts what a socket had no room for as it knows itself.
func (p *Port) countLostBy(fd int, before *atomic.Uint32) {
	if lost, counted := lostBy(fd); counted {
		p.count.countLost(before, lost)
	}
}
