package sctp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"
)

// subscription is the notifications a leg needs: how the association ended, and that a message was given up.
// SCTP_EVENT_DATA_IO is no notification: it makes the kernel add SCTP_SNDRCV to each message.
const subscription = sctp.SCTP_EVENT_DATA_IO | sctp.SCTP_EVENT_ASSOCIATION | sctp.SCTP_EVENT_PARTIAL_DELIVERY

// errFlushed ends the reading of a leg that flush was called for.
var errFlushed = errors.New("leg flushed")

// A leg is one association of a pair: a one-to-one SCTP socket that waits in Go's poller. One goroutine may
// receive while another sends.
type leg struct {
	peer   netip.AddrPort
	file   *os.File
	conn   syscall.RawConn
	disarm func() bool // of the abort that follows when the relay closes

	closing sync.Once // whoever comes second waits until the socket is closed
	shut    bool      // the peer's shutdown was read; belongs to the reader
	largest int       // message that the send buffer is known to take; belongs to the writer
}

// newLeg takes over fd, which must be non-blocking. When ctx ends the association is aborted.
func newLeg(ctx context.Context, fd int, peer netip.AddrPort) (*leg, error) {
	l := &leg{peer: peer, file: os.NewFile(uintptr(fd), "sctp")}
	// A file that the poller has not taken answers ErrNoDeadline.
	if err := l.file.SetDeadline(time.Time{}); err != nil {
		_ = l.file.Close() // the first error says more
		return nil, fmt.Errorf("socket in the poller: %w", err)
	}
	conn, err := l.file.SyscallConn()
	if err != nil {
		_ = l.file.Close() // the first error says more
		return nil, err
	}
	l.conn = conn
	l.disarm = context.AfterFunc(ctx, l.kill)
	return l, nil
}

// streams returns the number of streams from and to the peer.
func (l *leg) streams() (in, out uint16, err error) {
	err = l.control(func(fd int) error {
		status, err := sctp.NewSCTPConn(fd, nil).GetStatus()
		in, out = status.Instreams, status.Ostreams
		return os.NewSyscallError("getsockopt SCTP_STATUS", err)
	})
	return in, out, err
}

// gone tells whether the association has ended. Messages of the peer may still be there to be read.
func (l *leg) gone() bool {
	_, _, err := l.streams()
	return err != nil
}

// control runs f on the descriptor, which stays open meanwhile.
func (l *leg) control(f func(fd int) error) error {
	var err error
	if closed := l.conn.Control(func(fd uintptr) { err = f(int(fd)) }); closed != nil {
		return closed
	}
	return err
}

// shutdown tells the peer, behind all that was sent, that nothing more will come.
func (l *leg) shutdown() {
	// It fails only on an association that has ended already: the reader of this leg will come to that.
	_ = l.control(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
}

// flush ends the receiving from this leg: once all that was sent has been acknowledged, or after at most bound.
func (l *leg) flush(bound time.Duration) {
	// Both fail only on a leg that is closed, and its receiving has ended with that.
	_ = l.file.SetReadDeadline(time.Now().Add(bound))
	_ = l.control(func(fd int) error {
		return sctp.NewSCTPConn(fd, nil).SubscribeEvents(subscription | sctp.SCTP_EVENT_SENDER_DRY)
	})
}

// abort ends the association with an ABORT, which loses what was not yet delivered, and closes the socket.
func (l *leg) abort() {
	l.disarm()
	l.kill()
}

// kill is abort for whoever does not own the leg: those who use it are woken with an error.
func (l *leg) kill() {
	l.closing.Do(func() {
		// If the association is gone already, there is nobody to abort.
		_ = l.control(func(fd int) error {
			return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 0})
		})
		_ = l.file.Close() // a socket does not keep data back, so it has nothing to report
	})
}

// close leaves it to the kernel to deliver what was sent and to end the association with a SHUTDOWN. If messages
// are left to be read, the kernel aborts instead.
func (l *leg) close() {
	l.disarm()
	l.closing.Do(func() { _ = l.file.Close() }) // as in kill
}

// end closes a leg of a pair that has ended. If the pair failed, the leg is aborted, unless its peer has said its
// last word: then the kernel still delivers what is queued, and completes the shutdown.
func (l *leg) end(failed bool) {
	if failed && !l.shut {
		l.abort()
		return
	}
	l.close()
}

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
