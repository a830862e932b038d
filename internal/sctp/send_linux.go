package sctp

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// send waits until the kernel has taken the whole message. A wait is interrupted every so often to ask goOn
// whether to; if it says no, the error is os.ErrDeadlineExceeded.
func (l *leg) send(m *message, every time.Duration, goOn func() bool) error {
	if err := l.fit(len(m.data)); err != nil {
		return err
	}
	control := m.encode(&m.control)
	var err error
	attempt := func(fd uintptr) bool {
		err = retry(func() error {
			_, err := unix.SendmsgN(int(fd), m.data, control, nil, unix.MSG_NOSIGNAL)
			return err
		})
		return !errors.Is(err, unix.EAGAIN) // the send buffer is full; nothing was taken
	}

	if closed := l.conn.Write(func(fd uintptr) bool { attempt(fd); return true }); closed != nil {
		return closed
	}
	for errors.Is(err, unix.EAGAIN) {
		wait := l.awaitRoom(every, attempt)
		if wait != nil && (!errors.Is(wait, os.ErrDeadlineExceeded) || !goOn()) {
			return wait
		}
	}
	return os.NewSyscallError("sendmsg", err)
}

// awaitRoom repeats the attempt whenever there may be room, until it succeeds or fails, for at most bound.
func (l *leg) awaitRoom(bound time.Duration, attempt func(fd uintptr) bool) error {
	if err := l.file.SetWriteDeadline(time.Now().Add(bound)); err != nil {
		return err
	}
	wait := l.conn.Write(attempt)
	if err := l.file.SetWriteDeadline(time.Time{}); wait == nil {
		wait = err
	}
	return wait
}

// fit makes the send buffer large enough for a message of n bytes. Linux answers EMSGSIZE to one that is larger
// than the whole buffer (sctp_sendmsg_parse in net/sctp/socket.c).
func (l *leg) fit(n int) error {
	if n <= l.largest {
		return nil
	}
	return l.control(func(fd int) (err error) {
		l.largest, err = sendBuffer(fd)
		if err != nil || n <= l.largest {
			return err
		}
		// The kernel doubles the value, to make up for its own overhead. Without CAP_NET_ADMIN it is limited to
		// net.core.wmem_max; if that is too little, sendmsg will say so.
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, n)
		if errors.Is(err, unix.EPERM) {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, n)
		}
		if err != nil {
			return os.NewSyscallError("setsockopt SO_SNDBUF", err)
		}
		l.largest, err = sendBuffer(fd)
		return err
	})
}

func sendBuffer(fd int) (int, error) {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	return n, os.NewSyscallError("getsockopt SO_SNDBUF", err)
}
