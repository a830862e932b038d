package splice

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Backlog is how many connections may wait to be accepted; the kernel lowers it to net.core.somaxconn.
const Backlog = 4096

// acceptor is a published port on one of the loops: every loop accepts for itself.
type acceptor struct {
	loop    *loop
	port    *Port
	sources sourcePorts
}

// listenEvents: of the loops that wait, the kernel wakes one for a connection (epoll_ctl(2)).
const listenEvents = unix.EPOLLIN | unix.EPOLLEXCLUSIVE

// ready takes one connection. Level-triggered epoll comes back for the next, so that a burst of connections and
// the traffic of those that exist take turns.
func (a *acceptor) ready(uint32) {
	// The backend's socket comes first: a client is only taken out of the queue when there are descriptors for
	// both legs. Until then it waits there.
	back, err := a.port.backendSocket(a.loop.kernel)
	if err != nil {
		a.pause(err)
		return
	}
	from := &a.loop.addresses[0]
	front, errno := a.loop.kernel.accept(a.port.fd, from)
	if errno != 0 {
		closeFD(back)
		a.acceptFailed(errno)
		return
	}
	a.loop.stats.accepted.Add(1)
	a.dial(front, back, addrPort(from))
}

// acceptFailed sorts what accept(2) can answer.
func (a *acceptor) acceptFailed(errno unix.Errno) {
	switch errno {
	case unix.EAGAIN: // somebody else was faster
	case unix.ECONNABORTED, unix.EPROTO, unix.ENETDOWN, unix.ENOPROTOOPT, unix.EHOSTDOWN, unix.ENONET,
		unix.EHOSTUNREACH, unix.EOPNOTSUPP, unix.ENETUNREACH:
		// The error is of this one connection, which is gone (accept(2), "Error handling").
		a.loop.stats.acceptErrors.Add(1)
		a.loop.options.Report("accept", netip.AddrPort{}, a.port.backend, sysError("accept4", errno))
	default:
		// Descriptors or memory have run out, for the process or the machine, or a sandbox forbids it.
		a.pause(sysError("accept4", errno))
	}
}

// pause leaves the listener alone until the next tick, so that what cannot be served now does not spin the loop.
// Clients wait in the kernel's queue.
func (a *acceptor) pause(err error) {
	a.loop.stats.acceptErrors.Add(1)
	a.loop.options.Report("accept", netip.AddrPort{}, a.port.backend, err)
	a.loop.unwatch(a.port.fd) // events that cannot be masked would spin it too
	a.loop.paused = append(a.loop.paused, a)
}

// resumePaused watches the listeners again that paused.
func (l *loop) resumePaused() {
	l.paused = slices.DeleteFunc(l.paused, func(a *acceptor) bool {
		return l.watch(a.port.fd, listenEvents, a) == nil
	})
}

// addPort begins to accept for a port.
func (l *loop) addPort(p *Port) error {
	return l.watch(p.fd, listenEvents, &acceptor{loop: l, port: p, sources: sourcePorts{seed: l.number}})
}

// removePort stops accepting for a port. Connections that exist go on.
func (l *loop) removePort(p *Port) {
	ofPort := func(a *acceptor) bool { return a.port == p }
	paused := slices.ContainsFunc(l.paused, ofPort)
	l.paused = slices.DeleteFunc(l.paused, ofPort)
	a, known := l.slots.at(p.fd).handler.(*acceptor)
	if !known || a.port != p {
		return // a loop that is about to end has done so
	}
	if !paused {
		l.unwatch(p.fd)
	}
	l.forget(p.fd)
}
