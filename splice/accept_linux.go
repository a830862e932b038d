package splice

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Backlog is how many connections may wait to be accepted; the kernel lowers it to net.core.somaxconn.
const Backlog = 4096

// Port is a published port: a listener and the backend that its connections go to.
type Port struct {
	loop    *loop
	fd      int // the listening socket
	backend netip.AddrPort
	address sockaddr // the backend's, for connect
	sources sourcePorts
}

// ready takes one connection. Level-triggered epoll comes back for the next, so that a burst of connections and
// the traffic of those that exist take turns.
func (p *Port) ready(uint32) {
	// The backend's socket comes first: a client is only taken out of the queue when there are descriptors for
	// both legs. Until then it waits there.
	back, err := p.backendSocket()
	if err != nil {
		p.pause(err)
		return
	}
	var from unix.RawSockaddrAny
	front, errno := accept(p.fd, &from)
	if errno != 0 {
		closeFD(back)
		p.acceptFailed(errno)
		return
	}
	p.loop.stats.accepted.Add(1)
	p.dial(front, back, addrPort(&from))
}

// acceptFailed sorts what accept(2) can answer.
func (p *Port) acceptFailed(errno unix.Errno) {
	switch errno {
	case unix.EAGAIN: // somebody else was faster
	case unix.ECONNABORTED, unix.EPROTO, unix.ENETDOWN, unix.ENOPROTOOPT, unix.EHOSTDOWN, unix.ENONET,
		unix.EHOSTUNREACH, unix.EOPNOTSUPP, unix.ENETUNREACH, unix.EPERM:
		// The error is of this one connection, which is gone (accept(2), "Error handling"; EPERM: a
		// firewall's rule).
		p.loop.stats.acceptErrors.Add(1)
		p.loop.options.Report("accept", netip.AddrPort{}, p.backend, sysError("accept4", errno))
	default:
		// Descriptors or memory have run out, for the process or the machine.
		p.pause(sysError("accept4", errno))
	}
}

// pause leaves the listener alone until the next tick, so that what cannot be served now does not spin the loop.
// Clients wait in the kernel's queue.
func (p *Port) pause(err error) {
	p.loop.stats.acceptErrors.Add(1)
	p.loop.options.Report("accept", netip.AddrPort{}, p.backend, err)
	p.loop.unwatch(p.fd) // events that cannot be masked would spin it too
	p.loop.paused = append(p.loop.paused, p)
}

// resumePaused watches the listeners again that paused.
func (l *loop) resumePaused() {
	l.paused = slices.DeleteFunc(l.paused, func(p *Port) bool {
		return l.watch(p.fd, unix.EPOLLIN, p) == nil
	})
}

// close closes the listener. Connections that exist go on.
func (p *Port) close() {
	if p.fd < 0 {
		return
	}
	l := p.loop
	l.paused = slices.DeleteFunc(l.paused, func(other *Port) bool { return other == p })
	l.forget(p.fd)
	closeFD(p.fd)
	p.fd = -1
}
