package sctp

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"
)

// Why a pump has nothing more to read, other than an association that failed.
var (
	errShutdown = errors.New("peer has shut down")
	errFlushed  = errors.New("leg flushed")
)

// A pump carries the messages of one direction. What to does not take stays in the pump, and nothing more is read until
// it has left. Its zero value, with a pair and legs, is ready and holds nothing.
type pump struct {
	pair            *pair
	from, to        *leg
	messages, bytes *atomic.Uint64

	batch  *batch   // messages that wait for to; nil while there are none
	large  *message // one too large for a batch, being collected or, when it is whole, waiting; nil otherwise
	end    error    // what was read behind the messages that are held; nil while more may come
	over   bool     // end was passed on
	closed bool     // to takes no more messages; its reader will learn why
	denied bool     // to would not take what epoll said it had room for: wait for the timer, rather than spin

	orphan time.Duration // when a wait for to first found that from has ended; zero while it has not
	grand  bool          // the last message was too large for a batch, so the next may well be
}

// holding says whether messages wait for to.
func (u *pump) holding() bool { return u.batch != nil || u.large != nil && u.large.whole }

// wants says whether the pump would read.
func (u *pump) wants() bool { return u.end == nil && !u.holding() }

// read takes what has arrived, up to a batch of it, and sends it on.
func (u *pump) read() {
	if u.grand && u.large == nil {
		u.large = messages.Get().(*message)
	}
	var err error
	if u.large != nil {
		err = u.collect()
	} else {
		err = u.readBatch()
	}
	if !errors.Is(err, unix.EAGAIN) {
		u.end = err
	}
	u.drain()
}

// readBatch reads until there is no more, or a batch is full. The error says why nothing more is to be read, or is
// EAGAIN.
func (u *pump) readBatch() error {
	b := u.pair.loop.batches.get()
	u.batch = b
	n := 0
	err := u.from.receive(func(fd int) (errno unix.Errno) { n, errno = b.receive(fd); return errno })
	for i := 0; i < n && err == nil; i++ {
		err = u.sort(b, i)
	}
	if err == nil && b.used > b.open {
		u.large = messages.Get().(*message)
		b.openPieces(u.large.add)
	}
	if b.end == 0 {
		u.pair.loop.batches.put(b)
		u.batch = nil
	}
	return err
}

// sort finds out what a slot of the batch is.
func (u *pump) sort(b *batch, i int) error {
	data, control, flags := b.slot(i)
	switch {
	case flags&sctp.MSG_NOTIFICATION != 0:
		e := parseNotification(data)
		if e == eventGivenUp {
			b.dropOpen()
		}
		return u.from.notice(e)
	case len(data) == 0: // SCTP has no empty messages
		return u.from.notice(eventComplete)
	}
	b.add(data)
	if flags&unix.MSG_EOR == 0 {
		return nil
	}
	d, err := parseDelivery(control)
	if err == nil {
		b.complete(d)
	}
	return err
}

// collect reads pieces of a large message until it is whole. The error is as for readBatch.
func (u *pump) collect() error {
	m := u.large
	for !m.whole {
		err := u.from.receive(m.receive)
		if err == nil {
			err = u.gather(m)
		}
		if len(m.data) == 0 { // nothing has come, or what has come was given up
			m.release()
			u.large, u.grand = nil, false
			return err
		}
		if err != nil {
			return err
		}
	}
	u.grand = len(m.data) > batchDepth*slotSize
	return nil
}

// gather finds out what was received into the room of a large message.
func (u *pump) gather(m *message) error {
	data, control, flags := m.slot()
	switch {
	case flags&sctp.MSG_NOTIFICATION != 0:
		e := parseNotification(data)
		if e == eventGivenUp {
			m.data = m.data[:0]
		}
		return u.from.notice(e)
	case len(data) == 0: // SCTP has no empty messages
		return u.from.notice(eventComplete)
	}
	if err := m.extend(len(data)); err != nil || flags&unix.MSG_EOR == 0 {
		return err
	}
	d, err := parseDelivery(control)
	if err == nil {
		m.complete(d)
	}
	return err
}

// drain sends what the pump holds, until to takes no more: not even one message, unless moved. When all has left, and
// nothing more is to be read, that is passed on.
func (u *pump) drain() (moved bool) {
	for u.holding() {
		if u.closed || u.pair.failing() {
			u.drop()
			break
		}
		n, err := u.sendSome()
		switch {
		case errors.Is(err, unix.EAGAIN):
			return moved
		case err != nil:
			u.refused(err)
		default:
			u.advance(n)
			moved = true
		}
	}
	if u.end != nil && !u.over {
		u.finish()
	}
	return true
}

// resume is drain when epoll has said that to has room.
func (u *pump) resume() { u.denied = !u.drain() }

// sendSome sends what the kernel takes by one call.
func (u *pump) sendSome() (n int, err error) {
	if u.batch != nil {
		return u.to.send(u.batch.waiting(), u.batch.largest)
	}
	return u.to.send(u.large.head[:], len(u.large.data))
}

// advance counts what has left, and gives back what held it.
func (u *pump) advance(n int) {
	u.orphan = 0
	u.messages.Add(uint64(n))
	if u.batch == nil {
		u.bytes.Add(uint64(len(u.large.data)))
		u.large.release()
		u.large = nil
		return
	}
	for _, h := range u.batch.waiting()[:n] {
		u.bytes.Add(uint64(h.Len))
	}
	u.batch.sent += n
	if len(u.batch.waiting()) == 0 {
		u.pair.loop.batches.put(u.batch)
		u.batch = nil
	}
}

// refused takes the failure of a send. If the association is what failed, its reader will come to the reason. Anything
// else is about the message, such as EINVAL for a stream that was not agreed on, or about this system.
func (u *pump) refused(err error) {
	if ended(err) {
		u.closed = true
		return
	}
	u.pair.fail(err)
}

// drop forgets what the pump holds, and counts it.
func (u *pump) drop() {
	lost := 0
	if u.batch != nil {
		lost += len(u.batch.waiting())
		u.pair.loop.batches.put(u.batch)
		u.batch = nil
	}
	if u.large != nil {
		if u.large.whole {
			lost++
		}
		u.large.release()
		u.large = nil
	}
	u.pair.loop.relay.count.undelivered.Add(uint64(lost))
}

// finish passes the end of from on to the pair.
func (u *pump) finish() {
	u.over = true
	switch {
	case errors.Is(u.end, errFlushed): // the pair is failing already
	case !errors.Is(u.end, errShutdown):
		u.pair.fail(u.end)
	case !u.pair.failing(): // a shutdown now would look like an orderly end
		u.to.shutdown()
	}
}

// wait is called from time to time while the pump holds messages. While both associations live there is no limit: that
// is back pressure. When the sender has gone, what it has left behind keeps two sockets and a buffer: not for ever.
func (u *pump) wait(now time.Duration) {
	if !u.holding() {
		return
	}
	u.denied = false
	u.drain()
	switch {
	case !u.holding() || !u.from.gone():
	case u.orphan == 0:
		u.orphan = now
	case now-u.orphan >= u.pair.loop.patience.stall:
		u.pair.fail(fmt.Errorf("the sender has gone and the receiver takes no more: %w", os.ErrDeadlineExceeded))
	}
}

// ended tells that a send failed because the association is over, or is shutting down.
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
