package sctp

import (
	"errors"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/eventloop"
)

const (
	// bundleSize is the largest message that is worth waiting for another to share a packet with: two of them fit into
	// an MTU of 1500.
	bundleSize = 700

	// bundleBuffer is the send buffer that a leg needs to bundle: a batch of messages that wait for the last of them
	// must never fill it. Each takes its bytes twice, at most, and less than 1 KiB beside: 31*(4 KiB+1 KiB) is less.
	bundleBuffer = 208 << 10
)

// Why a leg has nothing more to be read, other than an association that failed.
var (
	errShutdown = errors.New("peer has shut down")
	errFlushed  = errors.New("leg flushed")
	errRestart  = os.NewSyscallError("association restarted", unix.ECONNRESET)
)

// A leg is one association of a pair: a non-blocking one-to-one SCTP socket, of which the leg is the owner.
type leg struct {
	pair *pair
	peer netip.AddrPort
	fd   int // -1 while there is none

	handle  eventloop.Handle
	watched bool       // with the loop
	events  uint32     // what it is watched for, beside errors and hang-ups
	hungUp  bool       // the association has ended: epoll says so for ever
	erring  bool       // epoll says that there is an error, which nobody can take
	corked  bool       // the last send was one with MSG_MORE: what it sent may wait for the next
	shut    bool       // the peer's shutdown was read
	errno   unix.Errno // taken from the socket; why the association ended, if it was lost
	streams uint16     // how many it has towards the peer; zero while that is not known
	wanted  int        // bytes that the send buffer was asked to have
	buffer  int        // bytes that it has
}

// Ready takes an event of the leg.
func (l *leg) Ready(events uint32) { l.pair.ready(l, events) }

// Move has the pair go to another loop.
func (l *leg) Move(to *eventloop.Loop) bool { return l.pair.move(to) }

// side is whose leg it is.
func (l *leg) side() connection.Side {
	if l == &l.pair.frontend {
		return connection.Client
	}
	return connection.Backend
}

func (l *leg) kernel() kernel { return l.pair.port.kernel }

// watchFor has the loop tell what the leg waits for, if that has changed. Errors and hang-ups cannot be masked: a leg that
// has one for ever is told of changes only, and reads on without being told.
func (l *leg) watchFor(events uint32) (err error) {
	if l.byEdges() {
		events |= unix.EPOLLET
	}
	switch {
	case l.fd < 0 || l.watched && events == l.events:
		return nil
	case l.watched:
		err = l.pair.loop.Rewatch(l.handle, l.fd, events)
	default:
		l.handle, err = l.pair.loop.Watch(l.fd, events, l)
		l.watched = err == nil
		l.pair.loop.Join(l.pair.backend.handle, l.pair.frontend.handle) // once both are watched
	}
	l.events = events
	return err
}

// byEdges says whether the leg is told of changes only.
func (l *leg) byEdges() bool { return l.hungUp || l.erring }

// unwatch takes the leg from the loop. What the loop has to tell of it already is dropped.
func (l *leg) unwatch() {
	if l.watched {
		l.pair.loop.Unwatch(l.handle, l.fd)
		l.handle, l.watched = eventloop.Handle{}, false // on another loop it could be that of another leg
	}
}

// note takes in of an event what cannot be masked.
func (l *leg) note(events uint32) {
	if events&unix.EPOLLHUP != 0 {
		l.hungUp = true
	}
	if events&unix.EPOLLERR != 0 && !l.takeError() {
		l.erring = true
	}
}

// takeError keeps the error that the socket has waiting, if there is one: the notification that follows does not say it
// as well.
func (l *leg) takeError() bool {
	errno := l.kernel().pendingError(l.fd)
	if errno != 0 {
		l.errno = errno
	}
	return errno != 0
}

// receive fills heads. Recvmmsg gives the socket's error first, if there is one, although messages wait that came before:
// then it is kept, and recvmmsg is called again. A leg that has hung up and has nothing left was lost before anybody asked
// to be told.
func (l *leg) receive(heads []unix.Mmsghdr) (int, error) {
	n, errno := l.kernel().receive(l.fd, heads)
	if errno != 0 && errno != unix.EAGAIN {
		l.errno = errno
		n, errno = l.kernel().receive(l.fd, heads)
	}
	if errno == unix.EAGAIN && l.hungUp {
		return 0, l.notice(eventLost)
	}
	return n, callError("recvmmsg", errno)
}

// callError names the call that failed. EAGAIN is no failure, and is too frequent to allocate a name for.
func callError(call string, errno unix.Errno) error {
	switch errno {
	case 0:
		return nil
	case unix.EAGAIN:
		return errno
	}
	return os.NewSyscallError(call, errno)
}

// notice tells what a notification says about the leg: nothing, or the error that ends the reading.
func (l *leg) notice(e event) error {
	switch e {
	case eventComplete:
		l.shut = true
		return errShutdown
	case eventDry:
		return errFlushed
	case eventRestart:
		return errRestart
	case eventLost:
		if l.errno == 0 && !l.takeError() {
			l.errno = unix.ECONNRESET
		}
		return os.NewSyscallError("association", l.errno)
	}
	return nil
}

// send sends as many of the messages as the kernel takes, the largest of which has the given size. Small ones share
// packets: all but the last are sent with MSG_MORE. The last must go by a call of its own then, which the caller makes
// when it comes back for the rest: until it has left, the leg is corked.
func (l *leg) send(heads []unix.Mmsghdr, largest int) (int, error) {
	// Linux answers EMSGSIZE to a message that is larger than the whole buffer (sctp_sendmsg_parse in net/sctp/socket.c).
	if n := max(largest, bundleBuffer); n > l.wanted {
		l.wanted = n
		l.buffer = l.kernel().sendBuffer(l.fd, n)
	}
	var flags int
	if len(heads) > 1 && largest <= bundleSize && l.buffer >= bundleBuffer {
		heads = heads[:len(heads)-1]
		flags = unix.MSG_MORE
	}
	n, errno := l.kernel().send(l.fd, heads, flags)
	if n > 0 {
		l.corked = flags != 0
	}
	return n, callError("sendmmsg", errno)
}

// stream is the one on which a message goes that came on the stream s. A message on a stream that was not granted would
// be refused. So those streams share the ones that were: the order within each is kept. Stream 0, which applications
// have for what concerns the association as a whole, is not shared unless it is the only one.
func (l *leg) stream(s uint16) uint16 {
	switch {
	case s < l.streams || l.streams == 0:
		return s
	case l.streams == 1:
		return 0
	}
	return 1 + (s-1)%(l.streams-1)
}

// learnStreams asks the kernel for the streams that the association has.
func (l *leg) learnStreams() (in, out uint16, err error) {
	in, out, err = l.kernel().streams(l.fd)
	l.streams = out
	return in, out, err
}

// shutdown tells the peer, behind all that was sent, that nothing more will come.
func (l *leg) shutdown() {
	if l.fd >= 0 {
		l.kernel().shutdown(l.fd)
	}
}

// flush asks to be told, by SENDER_DRY, when all that was sent has been acknowledged.
func (l *leg) flush() {
	if l.fd >= 0 {
		l.kernel().flush(l.fd)
	}
}

// gone tells whether the association has ended. Messages of the peer may still be there to be read.
func (l *leg) gone() bool {
	if l.fd < 0 {
		return true
	}
	_, _, err := l.kernel().streams(l.fd)
	return err != nil
}

// give hands the socket over.
func (l *leg) give() (fd int) {
	l.unwatch()
	fd, l.fd = l.fd, -1
	return fd
}

// end closes a leg of a pair that has ended. If the pair failed, the leg is aborted, unless its peer has said its last
// word: then the kernel still delivers what is queued, and completes the shutdown.
func (l *leg) end(failed bool) {
	if l.fd < 0 {
		return
	}
	if l.watched {
		l.pair.loop.Forget(l.handle) // closing takes it out of epoll
		l.watched = false
	}
	l.kernel().close(l.fd, failed && !l.shut)
	l.fd = -1
}
