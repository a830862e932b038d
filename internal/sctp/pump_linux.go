package sctp

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A pump carries the messages of one direction, one at a time: the next is not read before the last was taken.
type pump struct {
	pair            *pair
	from, to        *leg
	messages, bytes *atomic.Uint64

	closed bool      // to takes no more messages; its reader will learn why
	orphan time.Time // when a wait for to first found that from has ended
}

// run carries messages until nothing more will come.
func (u *pump) run() {
	for {
		m, err := u.from.receive()
		if err != nil {
			u.finish(err)
			return
		}
		u.forward(m)
		m.release()
	}
}

// finish passes the end of from on to the pair.
func (u *pump) finish(err error) {
	switch {
	case errors.Is(err, errFlushed): // the pair is failing already
	case !errors.Is(err, io.EOF):
		u.pair.fail(err)
	case !u.pair.failing(): // a shutdown now would look like an orderly end
		u.to.shutdown()
	}
}

// forward sends m, or counts it as undelivered if that is too late.
func (u *pump) forward(m *message) {
	if u.closed || u.pair.failing() {
		u.pair.count.undelivered.Add(1)
		return
	}
	u.orphan = time.Time{}
	err := u.to.send(m, u.pair.patience.check, u.goOn)
	if err == nil {
		u.messages.Add(1)
		u.bytes.Add(uint64(len(m.data)))
		return
	}
	u.pair.count.undelivered.Add(1)
	switch {
	case ended(err):
		u.closed = true
	case errors.Is(err, os.ErrDeadlineExceeded):
		u.pair.fail(fmt.Errorf("the sender has gone and the receiver takes no more: %w", err))
	default:
		u.pair.fail(err)
	}
}

// goOn tells whether to wait longer for room. While both associations live there is no limit: that is back
// pressure. When the sender has gone, what it has left behind keeps two sockets and a buffer: not for ever.
func (u *pump) goOn() bool {
	switch {
	case u.pair.failing():
		return false
	case !u.from.gone():
		return true
	case u.orphan.IsZero():
		u.orphan = time.Now()
	}
	return time.Since(u.orphan) < u.pair.patience.stall
}

// ended tells that a send failed because the association is over, or is shutting down. Anything else is about
// the message, such as EINVAL for a stream that was not agreed on, or about this system.
func ended(err error) bool {
	for _, errno := range []unix.Errno{
		unix.ESHUTDOWN, unix.EPIPE, unix.ENOTCONN, unix.ECONNRESET, unix.ECONNABORTED, unix.ECONNREFUSED,
		unix.ETIMEDOUT, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EPROTO,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
