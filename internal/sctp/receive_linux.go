package sctp

import (
	"errors"
	"io"
	"os"

	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"
)

// arrival describes what one recvmsg has put into the room of a message.
type arrival struct {
	bytes   int
	control int // bytes of control messages
	flags   int
}

// receive waits for the next whole message. The error is io.EOF when the peer has shut the association down and
// errFlushed after flush; otherwise it says why the association ended, or cannot go on.
func (l *leg) receive() (*message, error) {
	var m *message // nil until something is there: a leg that waits has no buffer
	for {
		got, err := l.recvmsg(&m)
		if err == nil {
			err = l.take(m, got)
		}
		switch {
		case err == nil && got.flags&sctp.MSG_NOTIFICATION == 0 && got.flags&unix.MSG_EOR != 0:
			return m, nil
		case err != nil && m != nil:
			m.release()
			return nil, err
		case err != nil:
			return nil, err
		}
	}
}

// recvmsg waits until there is something to read and reads it into *m, which it borrows when it is nil and gives
// back when it is empty and there is nothing to read.
func (l *leg) recvmsg(m **message) (got arrival, err error) {
	wait := l.conn.Read(func(fd uintptr) bool {
		if *m == nil {
			*m = messages.Get().(*message)
		}
		err = retry(func() (err error) {
			got.bytes, got.control, got.flags, _, err = unix.Recvmsg(int(fd), (*m).room(), (*m).control[:], 0)
			return err
		})
		if !errors.Is(err, unix.EAGAIN) {
			return true
		}
		if len((*m).data) == 0 {
			(*m).release()
			*m = nil
		}
		return false
	})
	switch {
	case errors.Is(wait, os.ErrDeadlineExceeded): // only flush sets one
		return arrival{}, errFlushed
	case wait != nil:
		return arrival{}, wait
	}
	return got, os.NewSyscallError("recvmsg", err)
}

// take adds what has arrived to m, or acts on it if it is a notification.
func (l *leg) take(m *message, got arrival) error {
	switch {
	case got.flags&sctp.MSG_NOTIFICATION != 0:
		return l.notice(m, m.room()[:got.bytes])
	case got.bytes == 0: // SCTP has no empty messages
		l.shut = true
		return io.EOF
	}
	if err := m.add(got.bytes); err != nil {
		return err
	}
	if got.flags&unix.MSG_EOR == 0 {
		return nil
	}
	var err error
	m.delivery, err = parseDelivery(m.control[:got.control])
	return err
}

// notice acts on a notification, which may have come between two pieces of m.
func (l *leg) notice(m *message, notification []byte) error {
	switch parseNotification(notification) {
	case eventGivenUp:
		m.data = m.data[:0]
	case eventComplete:
		l.shut = true
		return io.EOF
	case eventDry:
		return errFlushed
	case eventLost:
		return l.lost()
	}
	return nil
}

// lost tells why the association was lost.
func (l *leg) lost() error {
	err := l.control(func(fd int) error {
		errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && errno != 0 {
			err = unix.Errno(errno)
		}
		return err
	})
	if err == nil { // a send was told already, or the peer has restarted the association
		err = unix.ECONNRESET
	}
	return os.NewSyscallError("association", err)
}
