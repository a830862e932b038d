package sctp

import (
	"errors"
	"net/netip"
	"os"

	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/mmsg"
)

// subscription is the notifications a leg needs: how the association ended, and that a message was given up.
// SCTP_EVENT_DATA_IO is no notification: it makes the kernel add SCTP_SNDRCV to each message.
const subscription = sctp.SCTP_EVENT_DATA_IO | sctp.SCTP_EVENT_ASSOCIATION | sctp.SCTP_EVENT_PARTIAL_DELIVERY

const (
	// bundleSize is the largest message that is worth waiting for another to share a packet with: two of them fit into
	// an MTU of 1500.
	bundleSize = 700

	// bundleBuffer is the send buffer that a leg needs to bundle: a batch of messages that wait for the last of them
	// must never fill it. Each takes its bytes twice, at most, and less than 1 KiB beside: 31*(4 KiB+1 KiB) is less.
	bundleBuffer = 208 << 10
)

// A leg is one association of a pair: a non-blocking one-to-one SCTP socket.
type leg struct {
	pair *pair
	peer netip.AddrPort
	fd   int // -1 once closed

	events  uint32 // what it is watched for, beside errors and hang-ups
	watched bool
	hungUp  bool       // it gave EPOLLHUP: epoll would give it for ever
	errno   unix.Errno // taken from the socket; why the association ended, if it was lost
	shut    bool       // the peer's shutdown was read
	wanted  int        // bytes that the send buffer was asked to have
	buffer  int        // bytes that it has
}

// watchFor tells epoll what the leg waits for, if that has changed.
func (l *leg) watchFor(events uint32) error {
	loop := l.pair.loop
	var err error
	switch {
	case l.fd < 0: // closed
	case l.watched && l.hungUp && events == 0:
		err = loop.unwatch(l.fd)
		l.watched = false
	case l.watched && events != l.events:
		err = loop.rewatch(l.fd, events)
	case !l.watched && (!l.hungUp || events != 0):
		err = loop.watch(l.fd, events)
		l.watched = err == nil
	}
	l.events = events
	return err
}

// takeError keeps the error that the socket has waiting: the notification that follows does not say it as well.
func (l *leg) takeError() {
	if errno := pendingError(l.fd); errno != 0 {
		l.errno = errno
	}
}

// receive calls read, which must be a recvmmsg. That call gives the socket's error first, if there is one, although
// messages wait that came before: then it is kept, and read is called again.
func (l *leg) receive(read func(fd int) unix.Errno) error {
	errno := read(l.fd)
	if errno != 0 && errno != unix.EAGAIN {
		l.errno = errno
		errno = read(l.fd)
	}
	return callError("recvmmsg", errno)
}

// notice tells what a notification says about the leg: nothing, or the error that ends the reading.
func (l *leg) notice(e event) error {
	switch e {
	case eventComplete:
		l.shut = true
		return errShutdown
	case eventDry:
		return errFlushed
	case eventLost:
		if l.errno == 0 {
			l.takeError()
		}
		if l.errno == 0 { // the peer has restarted the association
			l.errno = unix.ECONNRESET
		}
		return os.NewSyscallError("association", l.errno)
	}
	return nil
}

// send sends as many of the messages as the kernel takes, the largest of which has the given size. Small ones share
// packets: all but the last are sent with MSG_MORE. The last must go by a call of its own then, which the caller makes
// when it comes back for the rest.
func (l *leg) send(heads []unix.Mmsghdr, largest int) (int, error) {
	if err := l.fit(max(largest, bundleBuffer)); err != nil {
		return 0, err
	}
	var flags int
	if len(heads) > 1 && largest <= bundleSize && l.buffer >= bundleBuffer {
		heads = heads[:len(heads)-1]
		flags = unix.MSG_MORE
	}
	n, errno := mmsg.Send(l.fd, heads, flags)
	return n, callError("sendmmsg", errno)
}

// fit tries to make the send buffer large enough for a message of n bytes. Linux answers EMSGSIZE to one that is larger
// than the whole buffer (sctp_sendmsg_parse in net/sctp/socket.c).
func (l *leg) fit(n int) (err error) {
	if n <= l.wanted {
		return nil
	}
	l.wanted = n
	if l.buffer, err = sendBuffer(l.fd); err != nil || n <= l.buffer {
		return err
	}
	if err := setBuffer(l.fd, "SO_SNDBUF", unix.SO_SNDBUF, unix.SO_SNDBUFFORCE, n); err != nil {
		return err
	}
	l.buffer, err = sendBuffer(l.fd) // the kernel doubles the value, to make up for its own overhead
	return err
}

func sendBuffer(fd int) (int, error) {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	return n, os.NewSyscallError("getsockopt SO_SNDBUF", err)
}

// setBuffer asks for a buffer of n bytes. Without CAP_NET_ADMIN the kernel gives no more than the sysctl says,
// net.core.wmem_max or rmem_max.
func setBuffer(fd int, name string, option, force, n int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, n)
	if errors.Is(err, unix.EPERM) {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, n)
	}
	return os.NewSyscallError("setsockopt "+name, err)
}

// shutdown tells the peer, behind all that was sent, that nothing more will come.
func (l *leg) shutdown() {
	// It fails only on an association that has ended already: the pump that reads the leg will come to that.
	_ = unix.Shutdown(l.fd, unix.SHUT_WR)
}

// flush asks to be told, by SENDER_DRY, when all that was sent has been acknowledged.
func (l *leg) flush() {
	// It fails only on an association that has ended already, as in shutdown.
	_ = sctp.NewSCTPConn(l.fd, nil).SubscribeEvents(subscription | sctp.SCTP_EVENT_SENDER_DRY)
}

// gone tells whether the association has ended. Messages of the peer may still be there to be read.
func (l *leg) gone() bool {
	_, _, err := streams(l.fd)
	return err != nil
}

// end closes a leg of a pair that has ended. If the pair failed, the leg is aborted, unless its peer has said its last
// word: then the kernel still delivers what is queued, and completes the shutdown.
func (l *leg) end(failed bool) {
	if l.fd < 0 {
		return
	}
	l.pair.loop.closeLater(l.fd, failed && !l.shut)
	l.fd = -1
}
