package udp

import (
	"errors"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// errCut is why a message is not passed on that was received in part.
var errCut = errors.New("received in part")

// receiveRequests takes a batch of datagrams from clients to the backend, and reports whether there may be more.
func (l *Loop) receiveRequests() (more bool) {
	asked := l.depth.ask(l.turn)
	for i := range asked {
		l.in.prepare(i, l.arena.buffer(i), true, true)
	}
	n, errno := l.kernel.receive(l.frontend, l.in.messages[:asked])
	switch errno {
	case 0:
		l.pace.reset()
	case unix.EAGAIN:
	default:
		l.frontendFailed(errno)
	}
	l.depth.got(n)
	for i := range n {
		l.forward(i)
	}
	l.flushRequests()
	return n == asked
}

// forward puts request i into the outbox of its flow. A request of another flow has the outbox sent first: opening a
// flow may close one.
func (l *Loop) forward(i int) {
	told := l.in.ancillary(i)
	l.countLost(&l.lost, told)
	key := flowKey{client: readPeer(&l.in.names[i]), asked: told.asked}
	f := l.out.flow()
	if f == nil || f.key != key {
		l.flushRequests()
		var err error
		if f, err = l.openFlow(key); err != nil {
			l.count.dropped.Add(1)
			l.options.Report("open a flow to the backend", key.client.addrPort(), l.backend, err)
			return
		}
	}
	l.put(f, i, i, told.segment, toBackend)
}

// flushRequests sends what is in the outbox to the backend.
func (l *Loop) flushRequests() {
	if f := l.out.flow(); f != nil {
		l.flush(int(f.fd), toBackend)
	}
}

// receiveReplies takes a batch of datagrams from the backend and puts them into the outbox, which is shared by all
// flows of the turn.
func (l *Loop) receiveReplies(f *flow) {
	asked := f.depth.ask(l.turn)
	if asked > 1 {
		l.widen(f)
	}
	if l.out.buffers+asked > batch {
		l.flush(l.frontend, toClients)
	}
	first := l.out.buffers
	for i := range asked {
		l.in.prepare(i, l.arena.buffer(first+i), false, f.wide)
	}
	n, errno := l.kernel.receive(int(f.fd), l.in.messages[:asked])
	if errno != 0 && errno != unix.EAGAIN {
		l.replyFailed(f, errno)
	}
	f.depth.got(n)
	for i := range n {
		told := l.in.ancillary(i)
		l.countLost(&f.lost, told)
		l.put(f, i, first+i, told.segment, toClients)
	}
	if l.out.buffers < first+n { // one was cut: the buffers after it are taken, and the outbox does not count so far
		l.flush(l.frontend, toClients)
	}
	if n > 0 {
		f.touch(l.time)
		if !f.answered {
			l.flows.answer(f)
		}
	}
}

// put puts received message i, which is in a buffer of the arena, into the outbox.
func (l *Loop) put(f *flow, i, buffer, segment int, way direction) {
	if l.in.cut(i) {
		l.count.dropped.Add(1)
		l.count.tooLarge.Add(1)
		l.options.Report(way.op(), f.key.client.addrPort(), l.backend, errCut)
		return
	}
	size := l.in.size(i)
	l.arena.noteWritten(buffer, size)
	l.out.put(f, l.arena.buffer(buffer)[:size], segment, int(f.limits[way]))
}

// countLost counts what a socket had no room for, where a datagram told.
func (l *Loop) countLost(before *atomic.Uint32, told ancillary) {
	if told.counted {
		l.count.countLost(before, told.lost)
	}
}

// countLostBy counts what a socket had no room for as it knows itself.
func (l *Loop) countLostBy(fd int, before *atomic.Uint32) {
	if lost, counted := lostBy(fd); counted {
		l.count.countLost(before, lost)
	}
}

// replyFailed deals with an error from a flow's socket. Most are the answer of a router or the backend's host to an
// earlier datagram, taken from the socket by being returned: one for each, so this cannot spin, and the backend may be
// back any moment. Any other could come again and again, and ends the flow.
func (l *Loop) replyFailed(f *flow, errno unix.Errno) {
	err := sysError("recvmmsg", errno)
	l.count.countRefusal(err)
	l.options.Report("receive from the backend", f.key.client.addrPort(), l.backend, err)
	switch errno {
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.EACCES, unix.ENOPROTOOPT,
		unix.EPROTO, unix.EMSGSIZE, unix.EOPNOTSUPP, unix.ENONET:
		// All that ICMP messages become (icmp_err_convert in the kernel).
	default:
		l.abandon(f)
	}
}

// frontendFailed lets the frontend rest: it would be ready again at once.
func (l *Loop) frontendFailed(errno unix.Errno) {
	l.options.Report("receive from clients", netip.AddrPort{}, l.backend, sysError("recvmmsg", errno))
	if rest := l.pace.next(); rest > 0 {
		l.paused, l.resume = true, l.time+rest
		// It fails only for a descriptor that is not watched, which is what is wanted.
		_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, l.frontend, nil)
	}
}

// resumeFrontend watches the frontend again, or lets it rest more.
func (l *Loop) resumeFrontend() {
	l.paused = false
	if err := l.watch(l.frontend); err != nil {
		l.options.Report("watch the frontend", netip.AddrPort{}, l.backend, err)
		l.paused, l.resume = true, l.time+l.pace.next()
	}
}
