package sctp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/budget"
	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/dialerror"
	"github.com/portsplice/portsplice/internal/eventloop"
)

var (
	// errAborted is why pairs end when their port does. Nobody is told.
	errAborted = errors.New("port aborted")

	errSelf = errors.New("the backend is the published port itself")
)

// maxAccepts is how many clients are accepted before those that are there have their turn.
const maxAccepts = 16

// A Port is a published port: its listener, and the pairs of its clients, which are on the loops of a group. Its methods
// may be called from any goroutine but, for Abort, those of the loops.
type Port struct {
	group    *eventloop.Group
	kernel   kernel
	settings atomic.Pointer[settings]
	count    counters
	memory   memory

	descriptors budget.Share // of the pairs

	listener int
	resume   eventloop.Timer // of a listener that rests
	pause    time.Duration   // that it rests for next time
	failing  time.Duration   // since when accept has failed; zero: it has not

	// mu is not held while a Report is called, and not for what a message needs.
	mu      sync.Mutex
	handle  eventloop.Handle // of the listener
	pairs   map[*pair]struct{}
	granted offer // what clients are offered
	closed  bool  // nobody is accepted any longer
}

// settings are exchanged as a whole.
type settings struct {
	Options
	backend netip.AddrPort
}

// counters are the Stats in the making: written by the loops and read from anywhere.
type counters struct {
	accepted, active, acceptErrors, aborted, undelivered, remapped atomic.Uint64
	messagesIn, messagesOut, bytesIn, bytesOut                     atomic.Uint64

	dialErrors dialerror.Counters
}

// New serves fd, a bound and listening one-to-one SCTP socket of either family, with associations to backend, on the loops
// of group. The port owns fd from here on; if New fails, it has been closed.
func New(group *eventloop.Group, fd int, backend netip.AddrPort, o Options) (*Port, error) {
	p := newPort(group, linux{}, fd, backend, o)
	err := prepareListener(fd)
	if err == nil {
		err = p.notItself()
	}
	if err == nil {
		p.mu.Lock()
		p.handle, err = group.First().Listen(fd, unix.EPOLLIN, p)
		p.mu.Unlock()
	}
	if err != nil {
		p.kernel.close(fd, true)
		return nil, fmt.Errorf("sctp: listener for %s: %w", backend, err)
	}
	return p, nil
}

func newPort(group *eventloop.Group, k kernel, fd int, backend netip.AddrPort, o Options) *Port {
	p := &Port{group: group, kernel: k, listener: fd, pause: minPause,
		pairs: map[*pair]struct{}{}, granted: everything}
	p.descriptors.Of(o.Budget)
	p.set(settings{o.withDefaults(), netip.AddrPortFrom(backend.Addr().Unmap(), backend.Port())})
	return p
}

// notItself refuses a backend that is the listener: each client would become the client of another pair, for ever.
func (p *Port) notItself() error {
	name, err := unix.Getsockname(p.listener)
	if err != nil {
		return fmt.Errorf("getsockname: %w", err)
	}
	own, to := addrPort(name), p.settings.Load().backend
	all := own.Addr().IsUnspecified() && own.Addr().Is4() == to.Addr().Is4() &&
		(to.Addr().IsLoopback() || to.Addr().IsUnspecified())
	if own == to || all && own.Port() == to.Port() {
		return errSelf
	}
	return nil
}

func (p *Port) set(s settings) {
	p.memory.limit.Store(s.Memory)
	p.settings.Store(&s)
}

// SetBackend has clients from now on relayed to another backend. Those that are there stay where they are.
func (p *Port) SetBackend(backend netip.AddrPort) {
	p.mu.Lock()
	p.set(settings{p.settings.Load().Options, netip.AddrPortFrom(backend.Addr().Unmap(), backend.Port())})
	p.mu.Unlock()
	p.forget()
}

// SetOptions exchanges the port's options, for the pairs that are there as well.
func (p *Port) SetOptions(o Options) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set(settings{o.withDefaults(), p.settings.Load().backend})
}

// Ready accepts the clients that wait, up to maxAccepts of them.
func (p *Port) Ready(uint32) {
	first := p.group.First()
	for range maxAccepts {
		here, err := p.accept(first.Place())
		switch {
		case errors.Is(err, unix.EAGAIN):
			return
		case err != nil:
			if !p.acceptFailed(err) {
				return
			}
		case here != nil:
			here.start()
		}
	}
	first.More()
}

// accept takes a client for a loop, and has its pair start there before the port can be aborted. If that is the first loop, whose
// goroutine this is, or the other has ended, it gives the pair, which is to be started. It answers EAGAIN when the port is closed.
func (p *Port) accept(on *eventloop.Loop) (here *pair, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, unix.EAGAIN
	}
	if p.descriptors.Full() { // the rest is for other ports
		return nil, unix.EMFILE
	}
	fd, client, err := p.kernel.accept(p.listener)
	if err != nil {
		return nil, err
	}
	p.pause, p.failing = minPause, 0
	// The kernel has copied the listener's options, also to an association that is older than they are.
	pair := p.add(on, fd, client)
	first := p.group.First()
	if on != first && on.Post(pair.start) {
		return nil, nil
	}
	pair.loop = first
	return pair, nil
}

// add makes a pair of a client's socket; p.mu is held.
func (p *Port) add(on loop, fd int, client netip.AddrPort) *pair {
	pair := newPair(p, on, fd, client)
	p.descriptors.Add(2)
	p.pairs[pair] = struct{}{}
	return pair
}

// adopt makes a new pair of the leg of another one, and of what was read of it.
func (p *Port) adopt(on loop, fd int, client netip.AddrPort, rest *batch) {
	p.mu.Lock()
	pair := p.add(on, fd, client)
	p.mu.Unlock()
	pair.in.rest = rest
	pair.start()
}

// remove forgets a pair that has ended.
func (p *Port) remove(pair *pair) {
	p.count.active.Add(^uint64(0))
	p.descriptors.Add(-2)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pairs, pair)
}

// post has a pair go on with f on another loop. It reports false, and the pair stays, when that one has ended.
func (p *Port) post(pair *pair, to *eventloop.Loop, f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	from := pair.loop
	pair.loop = to
	if to.Post(f) {
		return true
	}
	pair.loop = from
	return false
}

// acceptFailed sorts what accept can answer, and reports whether the next may be tried at once.
func (p *Port) acceptFailed(err error) (again bool) {
	p.count.acceptErrors.Add(1)
	backend := p.settings.Load().backend
	err = fmt.Errorf("sctp: accept for %s: %w", backend, err)
	switch {
	case isOneOf(err, unix.EINVAL, unix.EBADF, unix.ENOTSOCK, unix.EOPNOTSUPP, unix.ENOSYS): // it listens no longer
		p.Close()
		p.settings.Load().Ended(err)
	case isOneOf(err, unix.ECONNABORTED, unix.EPROTO, unix.ECONNRESET, unix.ETIMEDOUT): // of one client, which is gone
		again = true
	case p.overdue() && isOneOf(err, unix.EPERM, unix.EACCES): // a sandbox or a policy forbids it, and not for a moment
		p.Close()
		p.settings.Load().Ended(err)
	default: // descriptors or memory have run out: the listener rests
		first := p.group.First()
		first.SetTimer(&p.resume, p, first.Now()+p.pause)
		p.pause = min(2*p.pause, maxPause)
		p.watch(0)
	}
	p.settings.Load().Report("accept", netip.AddrPort{}, backend, err)
	return again
}

// overdue says whether accept has failed for as long as a dial may take, since it last did not.
func (p *Port) overdue() bool {
	now := p.group.First().Now()
	if p.failing == 0 {
		p.failing = now
	}
	return now-p.failing >= p.settings.Load().DialTimeout
}

// Ring ends the listener's rest.
func (p *Port) Ring(time.Duration) { p.watch(unix.EPOLLIN) }

// watch changes what the listener is watched for: EPOLLIN, or nothing.
func (p *Port) watch(events uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	if err := p.group.First().Rewatch(p.handle, p.listener, events); err != nil {
		panic(fmt.Sprintf("sctp: the listener is not watched: %v", err)) // it is open and registered
	}
}

// learn takes in what a backend has granted of what it was offered. It takes or has no more streams than that if it was
// offered more; then clients are offered no more from now on.
func (p *Port) learn(offered, got offer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	to := p.granted
	if got.out < offered.out {
		to.in = min(to.in, got.out)
	}
	if got.in < offered.in {
		to.out = min(to.out, got.in)
	}
	p.offer(to)
}

// forget has clients offered everything again: the backend may be another one when it answers again.
func (p *Port) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.offer(everything)
}

// offer changes what clients are offered; p.mu is held.
func (p *Port) offer(o offer) {
	if o == p.granted || p.closed {
		return
	}
	p.granted = o
	// If it fails, clients are granted streams that the backend does not have, as before: legs make up for that.
	_ = p.kernel.offer(p.listener, o)
}

// Close closes the listener. Clients that were not accepted yet are aborted; pairs live on.
func (p *Port) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	p.group.First().Unlisten(p.handle, p.listener)
	p.kernel.close(p.listener, true)
}

// Abort is Close, and then aborts every pair: none of them looks like an orderly end. It returns when all have ended.
func (p *Port) Abort() {
	p.Close()
	for byLoop := p.byLoop(); len(byLoop) > 0; byLoop = p.byLoop() {
		for on, pairs := range byLoop {
			abort := func() {
				for _, pair := range pairs {
					if p.isOn(pair, on) { // or it has moved meanwhile, and its turn comes
						pair.abort()
					}
				}
			}
			if !on.Do(abort) && !p.group.First().Do(func() {}) { // not the loop alone has ended, but the group
				p.group.Close() // which waits
				abort()
			}
		}
	}
}

func (p *Port) isOn(pair *pair, on loop) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return pair.loop == on
}

// byLoop gives the pairs there are, by the loop that they are on.
func (p *Port) byLoop() map[loop][]*pair {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[loop][]*pair{}
	for pair := range p.pairs {
		all[pair.loop] = append(all[pair.loop], pair)
	}
	return all
}

// Clients gives the associations of clients that have moved the most bytes, most of them at the most, the busiest first. The
// loops are asked between their turns, for a bounded number of pairs at a time; one that goes to another loop meanwhile
// may be missed. It must not be called from Report.
func (p *Port) Clients(most int) []connection.Traffic {
	b := connection.Busiest{Most: most}
	for on, pairs := range p.byLoop() {
		for part := range slices.Chunk(pairs, connection.LookAt) {
			on.Do(func() {
				for _, pair := range part {
					if p.isOn(pair, on) {
						b.Add(connection.Traffic{Address: pair.frontend.peer, Age: on.Now() - pair.began,
							BytesIn: pair.in.total, BytesOut: pair.out.total})
					}
				}
			})
		}
	}
	return b.All
}

// Stats returns the counters as they are now, one by one.
func (p *Port) Stats() Stats {
	s := Stats{
		Accepted:     p.count.accepted.Load(),
		Active:       p.count.active.Load(),
		AcceptErrors: p.count.acceptErrors.Load(),
		Aborted:      p.count.aborted.Load(),
		Undelivered:  p.count.undelivered.Load(),
		Remapped:     p.count.remapped.Load(),
		MessagesIn:   p.count.messagesIn.Load(),
		MessagesOut:  p.count.messagesOut.Load(),
		BytesIn:      p.count.bytesIn.Load(),
		BytesOut:     p.count.bytesOut.Load(),
		Counts:       p.count.dialErrors.Read(),
	}
	return s
}

// complain reports a failure of one client.
func (p *Port) complain(op string, client, backend netip.AddrPort, err error) {
	p.settings.Load().Report(op, client, backend, fmt.Errorf("sctp: %s %s to %s: %w", op, client, backend, err))
}
