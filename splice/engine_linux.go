package splice

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/portsplice/portsplice/internal/budget"
	"github.com/portsplice/portsplice/internal/eventloop"
)

// errClosed is what a closed engine or port answers.
var errClosed = errors.New("splice: closed")

// Engine relays any number of ports on its event loops. Its methods may be called from any goroutine. There are as many loops as
// the load needs, up to GOMAXPROCS. While small messages come beside many streams, or beside some where other loops are busy, and for some seconds after, there may be one more,
// for which the engine raises GOMAXPROCS by one, unless the environment sets it or it is less than the CPUs; the runtime does not
// follow a limit of CPUs that changes from then on.
type Engine struct {
	options Options
	group   *eventloop.Group
	shared  bool // the group is somebody else's
	kernel  kernel
	reserve reserve
	budget  *budget.Descriptors // of descriptors, if ports share any with others
	pipes   atomic.Uint64       // open now

	loops sync.Map // what is kept for each event loop: *eventloop.Loop to *loop

	mu     sync.Mutex
	closed bool
	ports  map[*Port]struct{} // that are open, or have connections
	past   Stats              // what ports have counted that are no more
}

// New starts an engine with no ports. The options are those of its ports, unless they have their own. When the kernel
// or a sandbox does not allow what it needs, the error wraps errors.ErrUnsupported.
func New(o Options) (*Engine, error) {
	group, err := eventloop.New(eventloop.Options{})
	if err != nil {
		return nil, unsupported("event loop", err)
	}
	e, err := On(group, o, nil)
	if err != nil {
		group.Close()
		return nil, err
	}
	e.shared = false
	return e, nil
}

// On is New on event loops that carry other protocols, too, with a budget of descriptors that may be nil. It is for this
// module.
func On(group *eventloop.Group, o Options, b *budget.Descriptors) (*Engine, error) {
	if err := Supported(); err != nil {
		return nil, err
	}
	return &Engine{
		options: o,
		group:   group,
		shared:  true,
		kernel:  linux{},
		reserve: newReserve(),
		budget:  b,
		ports:   make(map[*Port]struct{}),
	}, nil
}

// Add serves the port that listener stands for: a bound TCP (or MPTCP) socket, listening already or not. The
// engine owns the descriptor from then on, also when Add fails.
func (e *Engine) Add(listener int, backend netip.AddrPort) (*Port, error) {
	return e.AddWith(listener, backend, e.options)
}

// AddWith is Add for a port with options of its own.
func (e *Engine) AddWith(listener int, backend netip.AddrPort, o Options) (*Port, error) {
	p, err := e.add(listener, backend, o)
	if err != nil {
		closeFD(listener)
		return nil, err
	}
	return p, nil
}

func (e *Engine) add(listener int, backend netip.AddrPort, o Options) (*Port, error) {
	s, err := newSettings(backend, o)
	if err != nil {
		return nil, fmt.Errorf("splice: backend: %w", err)
	}
	p := &Port{engine: e}
	p.settings.Store(s)
	p.descriptors.Of(e.budget)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		err = errClosed
	} else if err = p.listener.open(p, listener); err != nil {
		err = fmt.Errorf("splice: listener: %w", err)
	}
	if err != nil {
		s.sources.Release()
		return nil, err
	}
	e.ports[p] = struct{}{}
	return p, nil
}

// on gives what the engine keeps for an event loop. It is called on the loop's goroutine alone, so nobody else stores for it.
func (e *Engine) on(el *eventloop.Loop) *loop {
	if found, ok := e.loops.Load(el); ok {
		return found.(*loop)
	}
	l := newLoop(e, el)
	e.loops.Store(el, l)
	el.AtEnd(func() {
		l.end()
		e.loops.Delete(el)
	})
	return l
}

// forget keeps only what a port has counted, if it has ended. (A connection that was accepted when the port was closed may
// count a little more, and end, later.)
func (e *Engine) forget(p *Port) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if counted, ended := p.end(); ended {
		delete(e.ports, p)
		e.past = e.past.plus(counted)
	}
}

// Stats reads the counters, of all ports. The engine goes on meanwhile.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	sum, ports := e.past, slices.Collect(maps.Keys(e.ports))
	e.mu.Unlock()
	for _, p := range ports { // one that ends meanwhile still knows what it has counted (Port.summed)
		sum = sum.plus(p.Stats())
	}
	sum.Loops, sum.Pipes = e.Shared()
	return sum
}

// Shared gives what Stats has of the engine itself, and looks at no port.
func (e *Engine) Shared() (loops, pipes uint64) { return uint64(e.group.Len()), e.pipes.Load() }

// Close closes all ports and resets their connections, and returns when that is done. What was in flight is lost. It must
// not be called from Options.Report.
func (e *Engine) Close() error {
	e.mu.Lock()
	first := !e.closed
	e.closed = true
	ports := slices.Collect(maps.Keys(e.ports))
	e.mu.Unlock()
	for _, p := range ports {
		_ = p.Abort() // which cannot fail
	}
	if !e.shared {
		e.group.Close()
	} else {
		for _, l := range e.loops.Range {
			l.(*loop).Do(l.(*loop).end)
		}
	}
	if first {
		e.reserve.close()
	}
	return nil
}
