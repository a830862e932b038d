package splice

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// errClosed is what a closed engine answers.
var errClosed = errors.New("splice: the engine is closed")

// Engine relays any number of ports on its event loops. Its methods may be called from any goroutine.
type Engine struct {
	options Options

	// mu is never taken on a loop's goroutine: whoever holds it may be waiting for a loop.
	mu      sync.Mutex
	loops   []*loop // the first lives as long as the engine; none once it is closed
	running bool    // the first loop has been started
	ports   []*Port
	retired Stats // the counters of loops that have ended
	helpers sync.WaitGroup
}

// Port is a published port: a listener and the backend that its connections go to.
type Port struct {
	engine  *Engine
	fd      int // the listening socket
	backend netip.AddrPort
	address sockaddr    // the backend's, for connect
	local   func() bool // says whether the backend's address is one of this host's; the first connection asks
}

// New starts an engine with no ports. When the kernel or a sandbox does not allow what it needs, the error wraps
// errors.ErrUnsupported.
func New(o Options) (*Engine, error) {
	if err := Supported(); err != nil {
		return nil, err
	}
	e := &Engine{options: o.withDefaults()}
	first, err := newLoop(0, e.options)
	if err != nil {
		return nil, unsupported("event loop", err)
	}
	first.overload = e.later(e.grow)
	e.loops = []*loop{first}
	return e, nil
}

// run starts the first loop. That is put off until it has a port, so that the port is served without waiting for a
// thread: half a millisecond of the 2.5 from exec to ready.
func (e *Engine) run() {
	e.running = true
	go e.loops[0].run()
}

// Add serves the port that listener stands for: a bound TCP (or MPTCP) socket, listening already or not. The
// engine owns the descriptor from then on, also when Add fails.
func (e *Engine) Add(listener int, backend netip.AddrPort) (*Port, error) {
	p := &Port{engine: e, fd: listener, backend: backend}
	if err := p.prepare(); err != nil {
		closeFD(listener)
		return nil, fmt.Errorf("splice: listener: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.accept(p); err != nil {
		closeFD(listener)
		return nil, err
	}
	e.ports = append(e.ports, p)
	return p, nil
}

// accept has every loop accept for the port; e.mu is held.
func (e *Engine) accept(p *Port) error {
	switch {
	case len(e.loops) == 0:
		return errClosed
	case !e.running:
		err := e.loops[0].addPort(p)
		e.run()
		return err
	}
	for i, l := range e.loops {
		var err error
		if l.do(func() { err = l.addPort(p) }); err != nil {
			for _, had := range e.loops[:i] {
				had.do(func() { had.removePort(p) })
			}
			return err
		}
	}
	return nil
}

// prepare makes the listener what the loops need.
func (p *Port) prepare() error {
	var err error
	if p.address, err = newSockaddr(p.backend); err != nil {
		return err
	}
	if p.backend.Port() == 0 {
		return fmt.Errorf("%v is not an address and port to connect to", p.backend)
	}
	p.local = sync.OnceValue(func() bool { return isLocal(p.backend.Addr()) })
	if err := unix.SetNonblock(p.fd, true); err != nil {
		return fmt.Errorf("fcntl: %w", err)
	}
	if err := setTCPOptions(p.fd, p.engine.options.KeepAlive); err != nil {
		return err
	}
	// On a socket that listens already this sets the backlog.
	if err := unix.Listen(p.fd, Backlog); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

// Close stops accepting on the port and closes its listener. Connections that exist go on.
func (p *Port) Close() error {
	e := p.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	at := slices.Index(e.ports, p)
	if at < 0 {
		return nil
	}
	e.ports = slices.Delete(e.ports, at, at+1)
	for _, l := range e.loops {
		l.do(func() { l.removePort(p) })
	}
	closeFD(p.fd)
	return nil
}

// grow starts another loop beside one that is saturated, if the process may use another CPU.
func (e *Engine) grow(busy *loop) {
	e.mu.Lock()
	defer e.mu.Unlock()
	number := len(e.loops)
	if number == 0 || number >= runtime.GOMAXPROCS(0) || !slices.Contains(e.loops, busy) {
		return
	}
	l, err := newLoop(number, e.options)
	if err != nil {
		e.options.Report("start another event loop", netip.AddrPort{}, netip.AddrPort{}, err)
		return
	}
	l.overload, l.idle = e.later(e.grow), e.later(e.retire)
	go l.run()
	for _, p := range e.ports {
		l.do(func() { err = errors.Join(err, l.addPort(p)) })
	}
	if err != nil { // it still takes over connections
		e.options.Report("accept on another event loop", netip.AddrPort{}, netip.AddrPort{}, err)
	}
	e.loops = append(e.loops, l)
	busy.do(func() { busy.share(l) })
}

// retire ends a loop that has little to do; the first takes its connections over.
func (e *Engine) retire(quiet *loop) {
	e.mu.Lock()
	if slices.Contains(e.loops, quiet) {
		quiet.do(func() { quiet.heir = e.loops[0] })
	}
	e.mu.Unlock()
	<-quiet.done
	e.mu.Lock()
	defer e.mu.Unlock()
	if at := slices.Index(e.loops, quiet); at >= 0 { // not closed meanwhile
		e.loops = slices.Delete(e.loops, at, at+1)
		e.retired = e.retired.plus(quiet.counted())
	}
}

// later gives a function that runs f in the background: the loops call it, and must not wait.
func (e *Engine) later(f func(*loop)) func(*loop) {
	return func(l *loop) { e.helpers.Go(func() { f(l) }) }
}

// Stats reads the counters.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	sum := e.retired
	for _, l := range e.loops {
		sum = sum.plus(l.counted())
	}
	sum.Loops = uint64(len(e.loops))
	return sum
}

// Close closes all ports and connections and returns when the loops have ended. What was in flight is lost.
func (e *Engine) Close() error {
	e.mu.Lock()
	if len(e.loops) > 0 && !e.running {
		e.run()
	}
	loops, ports := e.loops, e.ports
	e.loops, e.ports = nil, nil
	for _, l := range slices.Backward(loops) { // the heir of the others last: it may be owed connections
		l.do(func() { l.ended = true })
		<-l.done
		e.retired = e.retired.plus(l.counted())
	}
	for _, p := range ports {
		closeFD(p.fd)
	}
	e.mu.Unlock()
	e.helpers.Wait()
	return nil
}
