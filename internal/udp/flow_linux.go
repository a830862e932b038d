package udp

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/eventloop"
	"github.com/portsplice/portsplice/internal/udp/flows"
)

// flow is a client's entry in a port's table. Its socket is connected to the backend, so the backend sees one port for
// as long as the flow lives.
//
// The port's home sends on the socket and closes it. What the backend answers is taken by the loop that the flow is on.
// While that is not the home it holds mu as long as it uses the socket, so that the descriptor is not closed meanwhile,
// and another does not get its number.
type flow struct {
	flows.Tracking[flowKey]
	tally
	settings *settings            // that the flow was opened with
	at       atomic.Pointer[lane] // whose loop it is on; nil while it is on its way to another
	mu       sync.Mutex           // guards fd, handle and at of a flow that is not at home

	handle eventloop.Handle
	fd     int32         // -1 once the home has taken it to close it
	lost   atomic.Uint32 // datagrams that its socket had no room for, as last told
	depth  depth         // of the loop that it is on
	device uint32        // that the client came by
	number uint16        // its source port, if it is of the pool

	// limits are the largest datagrams that blocks to the backend, and to the client, are made of. A block that was
	// refused lowers it.
	limits [2]uint16

	wide    bool // its socket has been made ready for bursts
	nowhere bool // the client has no address that an answer could go to
}

// openFlow finds the flow of key, or opens it, at another's expense when the table is full or there is no descriptor
// or port left.
func (p *Port) openFlow(l *lane, key flowKey, device uint32) (*flow, error) {
	now := p.now(l.loop)
	if f := p.flows.Find(key); f != nil {
		if !f.stray || !f.settings.prober.settled(now, f.freshSource) {
			f.Touch(now)
			return f, nil
		}
		p.abandon(f)
	}
	return p.openWith(l, p.settings.Load(), key, device)
}

// openWith opens a flow that the table does not have, with settings that the port has or had before.
func (p *Port) openWith(l *lane, s *settings, key flowKey, device uint32) (*flow, error) {
	now, current := p.now(l.loop), p.settings.Load()
	from, err := s.source(&key.client)
	if err != nil {
		return nil, err
	}
	fd, number, err := s.dial(from, &key.client)
	if err != nil {
		return nil, err
	}
	f := &flow{Tracking: flows.Tracking[flowKey]{Key: key}, settings: s, fd: int32(fd), number: number, device: device}
	f.limits = [...]uint16{toBackend: s.blocksTo(), toClients: s.blocksBack(device)}
	f.nowhere = netip.AddrFrom16(key.client.addr).Unmap().IsUnspecified()
	f.at.Store(l)
	if f.handle, err = l.loop.Watch(fd, unix.EPOLLIN, f); err != nil {
		closeFD(fd)
		p.numbers.Return(number)
		return nil, err
	}
	if f.stray = s.prober.stray(s.backend.Addr(), now, func() netip.Addr { return source(fd) }); f.stray {
		f.report("open a flow to the backend", errStray)
	}
	if p.flows.Len() >= current.MaxFlows || p.descriptors.Full() {
		p.evict()
	}
	p.flows.Add(f, now)
	f.begin(&s.Options, key.client.addrPort(), s.backend, now)
	p.descriptors.Add(1)
	p.refs.Add(1)
	p.count.flows.Store(uint64(p.flows.Len()))
	p.count.flowsTotal.Add(1)
	if !p.sweeping.Set() {
		p.sweepAt(now + current.Timeout)
	}
	return f, nil
}

// report tells of a failure that concerns the flow.
func (f *flow) report(op string, err error) { f.settings.report(op, f.Key.client.addrPort(), err) }

// ipv4 says whether the flow's datagrams of that way go by IPv4.
func (f *flow) ipv4(way direction) bool {
	if way == toBackend {
		return f.settings.family == unix.AF_INET
	}
	return f.Key.client.ipv4()
}

// dial opens the socket of a new flow. When descriptors, or ports, have run out an older flow gives up its own.
func (s *settings) dial(from netip.Addr, client *peer) (fd int, number uint16, err error) {
	p := s.port
	for attempt := 1; ; attempt++ {
		last := attempt == dialAttempts
		fd, number, err = fromNumber(p.numbers, last, p.flows.Len() < p.settings.Load().guests, func(number uint16) (int, error) {
			return s.open(from, number)
		})
		if !exhausted(err) || last || !p.evict() {
			return fd, number, err
		}
		s.report("make room for a new client", client.addrPort(), err)
	}
}

// source is what the backend is to see of a client; the zero address: the kernel chooses.
func (s *settings) source(client *peer) (netip.Addr, error) {
	if s.path == nil {
		return netip.Addr{}, nil
	}
	return s.path.Source(client.addrPort().Addr())
}

// countRefused counts datagrams of a client that got no flow, if that is because the backend cannot be shown its address.
func (s *settings) countRefused(client *peer, datagrams int) {
	if _, err := s.source(client); err != nil {
		s.port.count.sourceRefused.Add(uint64(datagrams))
	}
}

// open opens a socket for a flow.
func (s *settings) open(from netip.Addr, number uint16) (int, error) {
	return s.port.kernel.open(s.family, s.address, netip.AddrPortFrom(from, number))
}

// evict forgets the flow that is missed least, and reports whether there was one.
func (p *Port) evict() bool {
	f := p.flows.Evict(p.now(p.home.Load().loop))
	if f == nil {
		return false
	}
	p.count.evicted.Add(1)
	p.closeFlow(f, connection.Evicted)
	return true
}

// abandon forgets a flow whose socket is of no more use, so that the next datagram of its client opens another.
func (p *Port) abandon(f *flow) {
	if p.flows.Remove(f) {
		p.count.abandoned.Add(1)
		p.closeFlow(f, connection.Failed)
	}
}

// closeFlow closes the socket of a flow that has left the table, once what waits there was read. What a loop other than
// the home knows of it goes later.
func (p *Port) closeFlow(f *flow, why connection.Reason) {
	p.count.flows.Store(uint64(p.flows.Len()))
	p.closeSocket(f)
	f.end(&f.settings.Options, f.Key.client.addrPort(), f.settings.backend, p.now(p.home.Load().loop), why)
}

func (p *Port) closeSocket(f *flow) {
	f.mu.Lock()
	at, handle, fd := f.at.Load(), f.handle, int(f.fd)
	f.fd = -1 // from here on no other loop uses it
	f.mu.Unlock()
	p.takeUnread(f, fd)
	p.countLostBy(fd, &f.lost)
	p.descriptors.Add(-1)
	closeFD(fd) // which takes it out of epoll
	p.numbers.Return(f.number)
	switch {
	case at == nil: // arrive finds that it is closed
		return
	case at == p.home.Load():
		at.loop.Forget(handle)
	case at.loop.Post(func() {
		at.loop.Forget(handle)
		p.release() // the turn before has sent what it had for the frontend
	}):
		return
	}
	p.release()
}

// Move takes the flow's way back to another loop.
func (f *flow) Move(to *eventloop.Loop) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fd < 0 || !to.Post(func() { f.arrive(to) }) {
		return false
	}
	f.at.Load().loop.Unwatch(f.handle, int(f.fd))
	f.at.Store(nil)
	return true
}

// arrive has the flow go on, on that loop's goroutine.
func (f *flow) arrive(loop *eventloop.Loop) {
	p := f.settings.port
	f.mu.Lock()
	closed := f.fd < 0
	var err error
	if !closed {
		f.at.Store(laneOf(loop))
		f.handle, err = loop.Watch(int(f.fd), unix.EPOLLIN, f)
	}
	f.mu.Unlock()
	switch {
	case closed:
		p.release()
	case err != nil:
		f.report("watch a flow", err)
		p.atHome(func() { p.abandon(f) })
	}
}

// Ready takes a batch of datagrams from the backend and puts them into the outbox, which is shared by all flows of the
// turn.
func (f *flow) Ready(uint32) {
	p, l := f.settings.port, f.at.Load()
	l.begin()
	asked := f.depth.ask(l.turn)
	if l.out.buffers+asked > batch || l.out.port != p {
		l.flush()
	}
	first := l.out.buffers
	n, errno, ok := f.receive(l, first, asked)
	if !ok {
		return
	}
	if n == asked {
		l.loop.More()
	}
	if n > 1 {
		l.loop.Charge(f.handle, uint32(n-1))
	}
	f.depth.got(n)
	if errno != 0 && errno != unix.EAGAIN {
		f.failed(l, errno)
	}
	for i := range n {
		told := l.in.ancillary(i)
		p.countLost(&f.lost, told)
		l.put(f, i, first+i, told, toClients)
	}
	if l.out.buffers < first+n { // one was cut: the buffers after it are taken, and the outbox does not count so far
		l.flush()
	}
	if n > 0 && !f.heard {
		f.heard = true
		f.atHome(l, func() { p.flows.Answer(f) })
	}
}

// receive receives into buffers from the first on. It is not ok if the flow is closed.
func (f *flow) receive(l *lane, first, asked int) (n int, errno unix.Errno, ok bool) {
	p := f.settings.port
	if p.home.Load() != l {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.fd < 0 {
			return 0, 0, false
		}
	}
	for i := range asked {
		l.in.prepare(i, l.arena.buffer(first+i), false)
	}
	n, errno = p.kernel.receive(int(f.fd), l.in.messages[:asked])
	if n > 0 {
		f.Touch(p.now(l.loop)) // before home may look whether there is something to be read
	}
	if n > 1 {
		f.widen()
	}
	if lasting(errno) {
		l.loop.Unwatch(f.handle, int(f.fd))
		f.handle = eventloop.Handle{}
	}
	return n, errno, true
}

// atHome has do run on the goroutine of the port's home, at once if that is the lane's.
func (f *flow) atHome(l *lane, do func()) {
	if f.settings.port.home.Load() == l {
		do()
		return
	}
	f.settings.port.atHome(do)
}

// failed deals with an error from the flow's socket. Most are the answer of a router or the backend's host to an
// earlier datagram, taken from the socket by being returned: one for each, so this cannot spin, and the backend may be
// back any moment. Any other could come again and again, and ends the flow.
func (f *flow) failed(l *lane, errno unix.Errno) {
	p := f.settings.port
	err := sysError("recvmmsg", errno)
	p.count.countRefusal(err)
	f.report("receive from the backend", err)
	if lasting(errno) {
		f.atHome(l, func() { p.abandon(f) })
	}
}

// lasting says whether a receive may fail in that way again and again.
func lasting(errno unix.Errno) bool { return errno != 0 && errno != unix.EAGAIN && !fromICMP(errno) }

// widen makes a flow's socket ready for bursts, the first time that it has one. Most flows never have: an exchange of
// single datagrams gains nothing by it. The flow is at home, or its mu is held.
func (f *flow) widen() {
	if !f.wide {
		f.wide = true
		tune(int(f.fd), flowBuffer, flowBuffer)
	}
}

// widenFromHome is widen for the port's home, wherever the flow is. It may have left the table.
func (f *flow) widenFromHome() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fd >= 0 {
		f.widen()
	}
}
