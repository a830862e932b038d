package splice

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/eventloop"
)

const (
	// acceptBatch is how many connections a listener takes before those that are there have their turn.
	acceptBatch = 64

	// A listener that cannot accept tries again after acceptPause, and later and later up to acceptPauseLonger. While it
	// is descriptors or memory that have run out it stays at the former, because they come back.
	acceptPause       = 10 * time.Millisecond
	acceptPauseLonger = time.Second
)

// listener is the socket of a port. It accepts on the first loop of the group, wherever the connections go then. Its
// lock is taken once for each batch, and is what lets Port.Close end it from any goroutine without a round over loops.
type listener struct {
	port   *Port
	loop   *eventloop.Loop
	errors atomic.Uint64 // calls of accept that failed, or that could not be made
	closed atomic.Bool

	mu     sync.Mutex
	fd     int
	handle eventloop.Handle

	// What follows belongs to the loop.
	timer   eventloop.Timer
	pause   time.Duration // the last one
	failing time.Duration // since when it cannot accept; zero: it can
}

// accepted is a connection that was taken, and a socket for its backend, unless that is for Options.Dial to open.
type accepted struct {
	front, back int        // back is -1 if there is none
	errno       unix.Errno // why there is no socket for the backend, and never will be
	client      netip.AddrPort
	settings    *settings // that the socket was opened with
}

// open makes the socket what the loop needs and begins to accept.
func (ln *listener) open(p *Port, fd int) error {
	ln.port, ln.fd, ln.loop = p, fd, p.engine.group.First()
	if err := unix.SetNonblock(fd, true); err != nil {
		return sysError("fcntl", err)
	}
	ln.setOptions(p.settings.Load().KeepAlive)
	if err := listen(fd); err != nil {
		return err
	}
	ln.mu.Lock()
	defer ln.mu.Unlock()
	var err error
	ln.handle, err = ln.loop.Listen(fd, unix.EPOLLIN, ln)
	return err
}

// setOptions sets what connections inherit.
func (ln *listener) setOptions(k net.KeepAliveConfig) { setTCPOptions(ln.fd, k) }

// listen has a socket listen, with the longest queue that the kernel allows (net.core.somaxconn). One that listens already
// is left as it is: whoever opened it has chosen its queue.
func listen(fd int) error {
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return sysError("getsockopt SO_ACCEPTCONN", err)
	}
	if listens != 0 {
		return nil
	}
	return sysError("listen", unix.Listen(fd, math.MaxInt32))
}

// close ends the listener. Clients that wait to be accepted are reset by the kernel.
func (ln *listener) close() {
	ln.closed.Store(true)
	ln.mu.Lock()
	defer ln.mu.Unlock()
	ln.deafen() // under the same lock: the loop may be about to listen again
	closeFD(ln.fd)
	ln.fd = -1
}

// Ready takes a batch of connections.
func (ln *listener) Ready(uint32) {
	l := ln.port.engine.on(ln.loop)
	n, err := ln.take(l)
	for _, c := range l.taken[:n] {
		ln.port.place(l, c)
	}
	if n > 0 {
		ln.pause, ln.failing = 0, 0
	}
	if err != nil {
		ln.failed(err)
	}
}

// take accepts up to a batch. The error is why it could not go on.
func (ln *listener) take(l *loop) (n int, err error) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if !ln.handle.Registered() {
		return 0, nil
	}
	s, from := ln.port.settings.Load(), &l.addresses[0]
	for batch := ln.waiting(l); n < batch; {
		// The backend's socket comes first: a client is only taken out of the queue when there are descriptors for
		// both legs. Until then it waits there.
		if ln.port.descriptors.Full() { // the rest is for other ports
			return n, sysError("socket", unix.EMFILE)
		}
		back, errno := s.socketAhead(l.kernel)
		if scarce(errno) {
			return n, sysError("socket", errno)
		}
		front, refused := l.kernel.accept(ln.fd, from)
		if refused != 0 {
			if back >= 0 {
				closeFD(back)
			}
			if refused == unix.EAGAIN { // nobody is left
				return n, nil
			}
			return n, sysError("accept4", refused)
		}
		ln.port.away.Add(1) // under this lock: whoever closes the port finds it counted
		ln.port.descriptors.Add(2)
		l.taken[n] = accepted{front, back, errno, addrPort(from), s}
		n++
	}
	return n, nil
}

// waiting is how many connections to take: as many as wait, up to a batch. To ask is cheaper than to find out by a call
// too many, before which there is a socket to be opened.
func (ln *listener) waiting(l *loop) int {
	// It is tcpi_unacked of a socket that listens (tcp_get_info in net/ipv4/tcp.c).
	if tcpInfo(ln.fd, &l.info) != 0 {
		return 1 // an MPTCP socket of an older kernel
	}
	return min(max(int(l.info.Unacked), 1), acceptBatch)
}

// scarce says whether something has run out that comes back, for the process or the machine.
func scarce(errno unix.Errno) bool {
	switch errno {
	case unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS:
		return true
	}
	return false
}

// countError counts a call of accept that failed, or that could not be made.
func (ln *listener) countError() {
	ln.errors.Add(1)
	if ln.closed.Load() { // the port may have ended
		ln.port.engine.forget(ln.port)
	}
}

// failed sorts why a batch ended early.
func (ln *listener) failed(err error) {
	ln.countError()
	ln.port.report("accept", netip.AddrPort{}, err)
	errno := errnoOf(err)
	switch errno {
	case unix.ECONNABORTED, unix.EPROTO, unix.ENETDOWN, unix.ENOPROTOOPT, unix.EHOSTDOWN, unix.ENONET,
		unix.EHOSTUNREACH, unix.EOPNOTSUPP, unix.ENETUNREACH:
		// The error is of this one connection, which is gone (accept(2), "Error handling").
		return
	case unix.EINVAL, unix.EBADF, unix.ENOTSOCK, unix.ENOSYS: // it does not listen any more, or never could
		ln.end(err)
		return
	}
	now := ln.loop.Now()
	if ln.failing == 0 {
		ln.failing = now
	}
	if now-ln.failing >= ln.port.settings.Load().DialTimeout {
		switch {
		case errno == unix.EPERM || errno == unix.EACCES: // a sandbox or a policy forbids it, and not for a moment
			ln.end(err)
			return
		case scarce(errno):
			ln.shed(err)
		}
	}
	ln.rest(now, scarce(errno))
}

// end stops accepting for good.
func (ln *listener) end(err error) {
	ln.unlisten()
	if told := ln.port.settings.Load().Ended; told != nil {
		told(fmt.Errorf("splice: listener: %w", err))
	}
}

// rest leaves the listener alone for a while, so that what cannot be served now does not spin the loop. Clients wait in
// the kernel's queue.
func (ln *listener) rest(now time.Duration, comesBack bool) {
	ln.unlisten() // events that cannot be masked would spin it too
	if comesBack {
		ln.pause = acceptPause
	} else {
		ln.pause = min(max(2*ln.pause, acceptPause), acceptPauseLonger)
	}
	ln.loop.SetTimer(&ln.timer, ln, now+ln.pause)
}

// unlisten has the listener get no events for now.
func (ln *listener) unlisten() {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	ln.deafen()
}

// deafen is unlisten with ln.mu held.
func (ln *listener) deafen() {
	if ln.handle.Registered() {
		ln.loop.Unlisten(ln.handle, ln.fd)
		ln.handle = eventloop.Handle{}
	}
}

// Ring tries again.
func (ln *listener) Ring(time.Duration) {
	ln.mu.Lock()
	if ln.fd < 0 {
		ln.mu.Unlock()
		return
	}
	var err error
	ln.handle, err = ln.loop.Listen(ln.fd, unix.EPOLLIN, ln)
	ln.mu.Unlock()
	if err != nil {
		ln.failed(err)
	}
}

// shed resets the clients that wait, by a descriptor that is kept for this. The first has waited for as long as a dial may take, others
// for less, and they are not kept any longer: what is missing may be held by connections that wait for these, as when a backend leads back
// to its own port.
func (ln *listener) shed(cause error) {
	for range acceptBatch {
		ln.mu.Lock()
		client, errno := netip.AddrPort{}, unix.EBADF
		if ln.fd >= 0 {
			client, errno = ln.port.engine.reserve.accept(ln.port.engine.kernel, ln.fd)
		}
		ln.mu.Unlock()
		if errno == unix.EAGAIN { // nobody waits any more, and the next begins to
			ln.failing = 0
		}
		if errno != 0 {
			return
		}
		ln.countError()
		ln.port.report("accept", client, cause)
	}
}

// reserve is a descriptor that is only held so that there is one when all have run out.
type reserve struct {
	mu sync.Mutex
	fd int
}

func newReserve() reserve { return reserve{fd: openReserve()} }

func openReserve() int {
	fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1 // without it clients wait for longer
	}
	return fd
}

// accept takes a client out of a listener's queue and resets it. It gives what accept(2) has answered.
func (r *reserve) accept(k kernel, listener int) (client netip.AddrPort, errno unix.Errno) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fd >= 0 {
		closeFD(r.fd)
	}
	var from unix.RawSockaddrAny
	front, errno := k.accept(listener, &from)
	if errno == 0 {
		k.setLinger(front, true)
		closeFD(front)
	}
	r.fd = openReserve()
	return addrPort(&from), errno
}

func (r *reserve) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fd >= 0 {
		closeFD(r.fd)
		r.fd = -1
	}
}
