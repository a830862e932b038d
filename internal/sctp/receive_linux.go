package sctp

import (
	"errors"

	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"
)

// gatherSlice is how much of a large message is read before others have their turn.
const gatherSlice = 256 << 10

// read takes what has arrived: up to a batch, or a slice of a large message. The error says why nothing more is to be read,
// or is EAGAIN.
func (u *pump) read() (more bool, err error) {
	if u.grand && u.large == nil {
		u.large = getMessage(&u.pair.port.memory)
	}
	if u.large != nil {
		return u.collect()
	}
	b := u.rest
	if u.rest = nil; b == nil {
		b = batches.Get().(*batch)
		b.filled, err = u.from.receive(b.room())
	}
	u.batch = b
	at := 0
	for ; at < b.filled && err == nil; at++ {
		err = u.sort(b, at)
	}
	if at < b.filled && errors.Is(err, errRestart) {
		u.rest = b.copyFrom(at)
	}
	if err == nil && b.used > b.open {
		u.large = getMessage(&u.pair.port.memory)
		u.large.since = u.pair.loop.Now()
		b.openPieces(u.large.add)
	}
	more = b.filled == batchDepth && err == nil
	if b.end == 0 {
		b.release()
		u.batch = nil
	}
	return more, err
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
		b.complete(u.remap(d))
	}
	return err
}

// collect reads pieces of a large message until it is whole. The results are as for read.
func (u *pump) collect() (more bool, err error) {
	m := u.large
	for begun := len(m.data); !m.whole; {
		switch {
		case len(m.data)-begun >= gatherSlice:
			return true, nil
		case !m.grow():
			return false, nil
		}
		n, err := u.from.receive(m.room())
		if n > 0 {
			err = u.gather(m)
		}
		if len(m.data) == 0 { // nothing has come, or what has come was given up
			m.release()
			u.large, u.grand = nil, false
			return false, err
		}
		if err != nil {
			return false, err
		}
	}
	u.grand = len(m.data) > batchDepth*slotSize
	return false, nil
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
	if len(m.data) == 0 {
		m.since = u.pair.loop.Now()
	}
	if err := m.extend(len(data)); err != nil || flags&unix.MSG_EOR == 0 {
		return err
	}
	d, err := parseDelivery(control)
	if err == nil {
		m.complete(u.remap(d))
	}
	return err
}

// remap puts a message on a stream that to has.
func (u *pump) remap(d delivery) delivery {
	if s := u.to.stream(d.stream); s != d.stream {
		d.stream = s
		u.pair.port.count.remapped.Add(1)
	}
	return d
}
