package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// DefaultTimeout is the idle time after which a flow is forgotten: what users of docker-proxy know.
	DefaultTimeout = 90 * time.Second

	// ceiling bounds a table that nobody sized. Every flow holds an ephemeral port, and Linux has 28,232 of them
	// for a network namespace: one published port under a flood of made-up clients must leave the host most of them.
	ceiling = 8192
)

// Options are what a caller may choose. The zero value is ready to use.
type Options struct {
	Timeout  time.Duration // idle time after which a flow is forgotten; zero means DefaultTimeout
	MaxFlows int           // bound of the table; zero means three quarters of RLIMIT_NOFILE, at most 8192

	// Report is told of failures: op is what was tried, client is invalid where the failure concerns none. It is
	// called from several goroutines, for each failure (limiting the rate is up to it), and must not block. May be nil.
	Report func(op string, client, backend netip.AddrPort, err error)
}

// Relay carries the datagrams of one published port.
type Relay struct {
	frontend *net.UDPConn
	backend  netip.AddrPort
	timeout  time.Duration
	maxFlows int
	report   func(op string, client, backend netip.AddrPort, err error)
	now      func() time.Duration // since New, never stepping back
	count    counters

	mu      sync.Mutex  // guards flows; held for a few steps, never across a system call
	flows   table       // empty, and staying so, once done is closed and shutdown has had mu
	sweeper *time.Timer // runs sweep; armed while there are flows, so that an idle port has nothing to wake for
	readers sync.WaitGroup

	done  chan struct{} // closed first of all when the relay closes
	close func() error  // shutdown, once
}

// New returns a relay from frontend, a bound socket, to backend. The relay owns frontend from then on; when New
// fails, frontend is still the caller's.
func New(frontend *net.UDPConn, backend netip.AddrPort, o Options) (*Relay, error) {
	backend = netip.AddrPortFrom(backend.Addr().Unmap(), backend.Port())
	if !backend.IsValid() || backend.Port() == 0 {
		return nil, fmt.Errorf("udp: backend %v: not an address and port", backend)
	}
	if o.Timeout < 0 || o.MaxFlows < 0 {
		return nil, fmt.Errorf("udp: timeout %v, at most %d flows: below zero", o.Timeout, o.MaxFlows)
	}
	if err := askForLocal(frontend); err != nil {
		return nil, fmt.Errorf("udp: ask for the local address of datagrams to %v: %w", frontend.LocalAddr(), err)
	}
	start := time.Now()
	r := &Relay{
		frontend: frontend,
		backend:  backend,
		timeout:  o.Timeout,
		maxFlows: o.MaxFlows,
		report:   o.Report,
		now:      func() time.Duration { return time.Since(start) },
		flows:    newTable(),
		done:     make(chan struct{}),
	}
	if r.timeout == 0 {
		r.timeout = DefaultTimeout
	}
	if r.maxFlows == 0 {
		r.maxFlows = max(1, min(ceiling, descriptorLimit()/4*3))
	}
	r.sweeper = time.AfterFunc(r.timeout, r.sweep)
	r.sweeper.Stop()
	r.close = sync.OnceValue(r.shutdown)
	return r, nil
}

// Serve relays until Close, and then returns nil. It is called once.
func (r *Relay) Serve() error {
	datagram := make([]byte, maxDatagram)
	control := make([]byte, controlSpace)
	var pace backoff
	for {
		n, controlLen, _, client, err := r.frontend.ReadMsgUDPAddrPort(datagram, control)
		switch {
		case err == nil:
			pace.reset()
			r.forward(datagram[:n], flowKey{client: client, asked: parseLocal(control[:controlLen])})
		case r.closed():
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("udp: receive on %v: %w", r.frontend.LocalAddr(), err)
		default:
			r.fail("receive from clients", netip.AddrPort{}, err)
			pace.pause(r.done)
		}
	}
}

// Close ends Serve, closes the frontend and every flow, and waits until nothing of the relay runs but Serve's last
// step. Closing again returns what the first call returned.
func (r *Relay) Close() error { return r.close() }

func (r *Relay) shutdown() error {
	close(r.done)
	err := r.frontend.Close()
	r.mu.Lock()
	r.sweeper.Stop()
	flows := r.flows.drain()
	r.mu.Unlock()
	for _, f := range flows {
		f.close()
	}
	r.readers.Wait()
	return err
}

func (r *Relay) closed() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// fail reports a failure, unless it comes from closing.
func (r *Relay) fail(op string, client netip.AddrPort, err error) {
	if r.report != nil && !r.closed() {
		r.report(op, client, r.backend, err)
	}
}
