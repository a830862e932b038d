package udp

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// flow is a client's entry in the loop's table: 96 bytes. Its socket is connected to the backend, so the backend sees
// one port for as long as the flow lives.
type flow struct {
	tracking[flowKey]
	fd     int32
	depth  depth
	wide   bool          // its socket has been made ready for bursts
	faulty bool          // its socket is of no more use
	lost   atomic.Uint32 // datagrams that its socket had no room for, as last told

	// limits are the largest datagrams that blocks to the backend, and to the client, are made of. A block that was
	// refused lowers it.
	limits [2]uint16
}

// sockets leads from a descriptor to its flow. It is made in blocks so that nothing is copied as flows become more.
//
// An event that is left in a batch which closed its descriptor finds no flow, or that of a later descriptor with the
// same number. Then there is nothing to receive, and that is all.
type sockets struct{ blocks []*[socketBlock]*flow }

const socketBlock = 128

// at gives the place of a descriptor's flow.
func (s *sockets) at(fd int32) **flow {
	for int(fd) >= len(s.blocks)*socketBlock {
		s.blocks = append(s.blocks, new([socketBlock]*flow))
	}
	return &s.blocks[fd/socketBlock][fd%socketBlock]
}

// openFlow finds the flow of key, or opens it, at another's expense when the table is full or there is no descriptor
// or port left.
func (l *Loop) openFlow(key flowKey) (*flow, error) {
	if f := l.flows.find(key); f != nil {
		f.touch(l.time)
		return f, nil
	}
	fd, err := l.dial(&key.client)
	if err != nil {
		return nil, err
	}
	if l.flows.len() >= l.options.MaxFlows {
		l.evict()
	}
	if l.flows.len() == 0 {
		l.nextSweep, l.sweepBy = l.time+l.options.Timeout, 0
	}
	f := &flow{tracking: tracking[flowKey]{key: key}, fd: int32(fd), limits: [...]uint16{maxBlock, maxBlock}}
	*l.sockets.at(f.fd) = f
	l.flows.add(f, l.time)
	l.count.flows.Store(uint64(l.flows.len()))
	l.count.flowsTotal.Add(1)
	return f, nil
}

// dial opens the socket of a new flow. When descriptors, or ports, have run out an older flow gives up its own.
func (l *Loop) dial(client *peer) (int, error) {
	for attempt := 1; ; attempt++ {
		fd, err := l.openSocket()
		if !exhausted(err) || attempt == dialAttempts || !l.evict() {
			return fd, err
		}
		l.options.Report("make room for a new client", client.addrPort(), l.backend, err)
	}
}

// evict forgets the flow that is missed least, and reports whether there was one.
func (l *Loop) evict() bool {
	f := l.flows.evict(l.time)
	if f == nil {
		return false
	}
	l.count.evicted.Add(1)
	l.closeFlow(f)
	return true
}

// abandon forgets a flow whose socket is of no more use, so that the next datagram of its client opens another.
func (l *Loop) abandon(f *flow) {
	if l.flows.remove(f) {
		l.count.abandoned.Add(1)
		l.closeFlow(f)
	}
}

// closeFlow closes the socket of a flow that has left the table.
func (l *Loop) closeFlow(f *flow) {
	*l.sockets.at(f.fd) = nil
	l.countLostBy(int(f.fd), &f.lost)
	closeFD(int(f.fd)) // which takes it out of epoll
	l.count.flows.Store(uint64(l.flows.len()))
}

// widen makes a flow's socket ready for bursts, the first time that it has one. Most flows never have: an exchange of
// single datagrams gains nothing by it.
func (l *Loop) widen(f *flow) {
	if f.wide || !f.queued { // or has left the table, with its replies still to be sent
		return
	}
	f.wide = true
	tune(int(f.fd), flowBuffer)
}

// openSocket opens a socket that is connected to the backend, and watched.
func (l *Loop) openSocket() (int, error) {
	fd, err := unix.Socket(l.backendFamily, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return -1, sysError("socket", err)
	}
	if err = sysError("connect", unix.Connect(fd, l.address)); err == nil {
		err = l.watch(fd)
	}
	if err != nil {
		closeFD(fd)
		return -1, err
	}
	return fd, nil
}
