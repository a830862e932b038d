package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/sourceport"
	"github.com/portsplice/portsplice/internal/udp/flows"
)

// Portable carries the datagrams of one published port with a goroutine for each flow, wherever Go runs.
type Portable struct {
	frontend *net.UDPConn
	backend  netip.AddrPort
	options  Options
	numbers  *sourceport.Pool
	now      func() time.Duration // stopwatch
	count    counters
	lost     atomic.Uint32 // datagrams that the frontend had no room for, as last told

	mu      sync.Mutex    // guards flows; held for a few steps, never across a system call
	flows   portableTable // empty, and staying so, once done is closed and shutdown has had mu
	sweeper *time.Timer   // runs tick; armed while there are flows, so that an idle port has nothing to wake for
	noted   time.Duration // when tick found that flows may have expired; zero: it has not. The timer's own, as again is
	again   int           // how often it has begun anew
	readers sync.WaitGroup
	prober  prober // Serve's, as marked is
	marked  []byte // room for what is sent with a datagram to the backend

	done  chan struct{} // closed first of all when the relay closes
	close func() error  // shutdown, once
}

// NewPortable returns a relay from frontend, a bound socket, to backend. The relay owns frontend from then on; when
// NewPortable fails, frontend is still the caller's.
func NewPortable(frontend *net.UDPConn, backend netip.AddrPort, o Options) (*Portable, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if backend, err = checkBackend(backend); err != nil {
		return nil, err
	}
	if o.Transparent {
		return nil, fmt.Errorf("udp: transparent: %w by the portable relay", errors.ErrUnsupported)
	}
	if err := readyPortable(frontend); err != nil {
		return nil, fmt.Errorf("udp: make the socket of %v ready: %w", frontend.LocalAddr(), err)
	}
	r := &Portable{
		frontend: frontend,
		backend:  backend,
		options:  o,
		numbers:  sourceport.UDP,
		now:      stopwatch(),
		flows:    flows.New[portableKey, *portableFlow](),
		done:     make(chan struct{}),
	}
	r.sweeper = time.AfterFunc(o.Timeout, r.tick)
	r.sweeper.Stop()
	r.close = sync.OnceValue(r.shutdown)
	return r, nil
}

// Serve relays until Close, and then returns nil. It is called once.
func (r *Portable) Serve() error {
	datagram := make([]byte, maxDatagram)
	control := make([]byte, controlSpace)
	var pace backoff
	for {
		n, controlLen, flags, client, err := r.frontend.ReadMsgUDPAddrPort(datagram, control)
		switch {
		case err == nil:
			pace.reset()
			told := parseControl(control[:controlLen])
			if told.counted {
				r.count.countLost(&r.lost, told.lost)
			}
			key := portableKey{client: client, asked: told.asked}
			if cut(flags) {
				r.drop("send to the backend", key, errCut)
				continue
			}
			r.forward(datagram[:n], key, told.tos)
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
func (r *Portable) Close() error { return r.close() }

func (r *Portable) shutdown() error {
	close(r.done)
	r.countLostBy(r.frontend, &r.lost)
	err := r.frontend.Close()
	r.mu.Lock()
	r.sweeper.Stop()
	flows := r.flows.Drain()
	r.mu.Unlock()
	for _, f := range flows {
		r.closeFlow(f, connection.Stopped)
	}
	r.readers.Wait()
	return err
}

func (r *Portable) closed() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// fail reports a failure, unless it comes from closing.
func (r *Portable) fail(op string, client netip.AddrPort, err error) {
	if !r.closed() {
		r.options.Report(op, client, r.backend, err)
	}
}

// drop gives a datagram up.
func (r *Portable) drop(op string, key portableKey, err error) {
	r.count.countDrop(1, err)
	r.fail(op, key.client, err)
}

// Stats returns the counts.
func (r *Portable) Stats() Stats {
	r.countLostBy(r.frontend, &r.lost)
	s := r.count.read()
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Flows = uint64(r.flows.Len())
	return s
}

// Clients gives the flows that have moved the most bytes, most of them at the most, the busiest first. A client that has
// asked two of the host's addresses is told of by its busier flow.
func (r *Portable) Clients(most int) []connection.Traffic {
	b := connection.Busiest{Most: most}
	for next, more := 0, true; more; next += connection.LookAt {
		r.mu.Lock()
		for f := range r.flows.Part(next, connection.LookAt) {
			b.Add(f.traffic(f.Key.client, r.now()))
		}
		more = next+connection.LookAt < r.flows.Len()
		r.mu.Unlock()
	}
	return b.All
}

// countLostBy counts what a socket had no room for since that was told last.
func (r *Portable) countLostBy(conn *net.UDPConn, before *atomic.Uint32) {
	if lost, counted := lostByConn(conn); counted {
		r.count.countLost(before, lost)
	}
}

// flow finds the flow of key, or opens it.
func (r *Portable) flow(key portableKey) (*portableFlow, error) {
	if f := r.find(key); f != nil {
		if !f.stray || !r.prober.settled(r.now(), r.freshSource) {
			return f, nil
		}
		r.abandon(f)
	}
	conn, number, err := r.dial(key.client)
	if err != nil {
		return nil, err
	}
	f, err := newPortableFlow(key, conn)
	if err != nil {
		r.numbers.Return(number)
		return nil, err
	}
	f.number = number
	f.begin(&r.options, key.client, r.backend, r.now())
	if f.stray = r.prober.stray(r.backend.Addr(), r.now(), func() netip.Addr { return sourceOf(conn) }); f.stray {
		r.fail("open a flow to the backend", key.client, errStray)
	}
	if !r.admit(f) {
		r.closeFlow(f, connection.Stopped)
		return nil, net.ErrClosed
	}
	return f, nil
}

func (r *Portable) freshSource() (netip.Addr, error) { return freshSource(r.backend) }

// find refreshes the flow before the lock is left, so that the sweeper cannot close it under the datagram.
func (r *Portable) find(key portableKey) *portableFlow {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.flows.Find(key)
	if f != nil {
		f.Touch(now)
	}
	return f
}

// dial opens the backend socket of a new flow. When descriptors, or ports, have run out an older flow gives up its
// own.
func (r *Portable) dial(client netip.AddrPort) (conn *net.UDPConn, number uint16, err error) {
	for attempt := 1; ; attempt++ {
		last := attempt == dialAttempts
		conn, number, err = fromNumber(r.numbers, last, r.fewer(r.options.guests), func(number uint16) (*net.UDPConn, error) {
			var local *net.UDPAddr // nil: the kernel chooses all of it
			if number != 0 {
				local = &net.UDPAddr{Port: int(number)}
			}
			return net.DialUDP("udp", local, net.UDPAddrFromAddrPort(r.backend))
		})
		if !exhausted(err) || last || !r.evict() {
			return conn, number, err
		}
		r.fail("make room for a new client", client, err)
	}
}

// evict forgets the flow that is missed least, and reports whether there was one.
func (r *Portable) evict() bool {
	r.mu.Lock()
	f := r.flows.Evict(r.now())
	r.mu.Unlock()
	if f == nil {
		return false
	}
	r.count.evicted.Add(1)
	r.closeFlow(f, connection.Evicted)
	return true
}

// admit enters a flow into the table, at another's expense when that is full, and starts its way back. A relay
// that is closing admits none.
func (r *Portable) admit(f *portableFlow) bool {
	if !r.fewer(r.options.MaxFlows) {
		r.evict()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed() {
		return false
	}
	if r.flows.Len() == 0 {
		r.sweeper.Reset(r.options.Timeout)
	}
	r.flows.Add(f, r.now())
	r.count.flowsTotal.Add(1)
	r.readers.Go(func() { r.serveReplies(f) })
	return true
}

// fewer says whether there are fewer flows than that.
func (r *Portable) fewer(than int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.flows.Len() < than
}

// settle is how long the relay is to have run, since it was found that flows seem idle, before they are forgotten. When
// the process stood still, their datagrams may only not have been read yet: 5,000, which a socket of 4 MiB holds, take
// a fifth of it. A standstill meanwhile begins it anew, a few times: a machine may also be that slow.
const (
	settle      = 250 * time.Millisecond
	standstills = 4
)

// tick is when flows may have expired. It is only noted at first.
func (r *Portable) tick() {
	now, rest := r.now(), min(settle, r.options.Timeout/8)
	if r.noted == 0 || now-r.noted > 2*rest && r.again < standstills {
		if r.noted == 0 {
			r.again = 0
		}
		r.noted, r.again = now, r.again+1
		r.arm(rest)
		return
	}
	noted := r.noted
	r.noted = 0
	r.sweep(noted)
}

func (r *Portable) arm(wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed() {
		r.sweeper.Reset(wait)
	}
}

// sweep forgets the flows that had been idle for the timeout then, and sets the timer for the next one to come.
func (r *Portable) sweep(then time.Duration) {
	r.mu.Lock()
	idle := r.flows.Expire(then - r.options.Timeout)
	if at, some := r.flows.Due(then, r.options.Timeout); some && !r.closed() {
		r.sweeper.Reset(at - then)
	}
	r.mu.Unlock()
	r.count.expired.Add(uint64(len(idle)))
	for _, f := range idle {
		r.closeFlow(f, connection.Idle)
	}
}

// abandon forgets a flow whose socket is of no more use, so that the next datagram of its client opens another.
func (r *Portable) abandon(f *portableFlow) {
	r.mu.Lock()
	had := r.flows.Remove(f)
	r.mu.Unlock()
	if had {
		r.count.abandoned.Add(1)
	}
	r.closeFlow(f, connection.Failed)
}

// closeFlow closes the socket of a flow that has left the table. What waits there, because the flow's goroutine has not
// run yet, is dropped.
func (r *Portable) closeFlow(f *portableFlow, why connection.Reason) {
	if n := f.inbox.discardUnread(); n > 0 {
		r.count.countDrop(n, errUnread)
		r.fail(toClients.op(), f.Key.client, errUnread)
	}
	r.countLostBy(f.conn, &f.lost)
	if f.close() {
		r.numbers.Return(f.number)
		f.end(&r.options, f.Key.client, r.backend, r.now(), why)
	}
}
