package fallback

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/portsplice/portsplice/internal/connection"
)

// flushTimeout bounds the wait, when one leg has failed, for the other's peer to take what was delivered before:
// a reset throws away what is still in the socket.
const flushTimeout = 5 * time.Second

// buffers lends the directions what they copy through.
var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// errReset stands for an end of file that was none.
var errReset = errors.New("connection reset by peer")

// pair is a connection through the proxy.
type pair struct {
	port   *Port
	client client
	began  time.Time // the client was accepted
	front  leg
	back   leg
	ended  atomic.Int32        // directions that have passed on an end of file
	failed sync.Once           // the first failure decides what the other leg sees
	end    connection.End      // by that failure
	first  atomic.Pointer[leg] // whose direction ended first
	// trouble is the first write that failed, and whose leg that speaks of. What the other direction reads later says less.
	trouble atomic.Pointer[connection.End]
	motion  motion
}

// leg is one side of a pair.
type leg struct {
	*net.TCPConn
	side connection.Side
	shut atomic.Bool // its write side was shut down by us

	writing sync.Mutex    // held during a write and until cut and refused say how it went
	cut     atomic.Bool   // a write failed: the connection is gone, whatever its read side says
	refused atomic.Bool   // a write failed after the peer had ended its own direction in order (EPIPE)
	taken   atomic.Uint64 // bytes that were written
}

func newPair(p *Port, front, back *net.TCPConn, c client, began time.Time) *pair {
	return &pair{port: p, client: c, began: began, front: leg{TCPConn: front, side: connection.Client}, back: leg{TCPConn: back, side: connection.Backend}}
}

// relay moves bytes both ways until both directions have ended, and closes both connections. It gives who ended them, and
// why.
func (p *pair) relay() connection.End {
	p.enter()
	p.resetAtExit()
	var up sync.WaitGroup
	stats, first := &p.port.engine.stats, p.client.first()
	up.Go(func() { p.pump(&p.front, &p.back, first, &stats.toBack) })
	p.pump(&p.back, &p.front, nil, &stats.toFront)
	up.Wait()
	switch {
	case p.front.gaveUp():
		p.fail(&p.front, &p.back, nil)
	case p.back.gaveUp():
		p.fail(&p.back, &p.front, nil)
	}
	// Both ends have been passed on, or both connections reset: a close has nothing more to say.
	p.endInOrder()
	_ = p.front.Close()
	_ = p.back.Close()
	if p.end.Reason == "" {
		return connection.End{By: p.first.Load().side, Reason: connection.Closed}
	}
	return p.end
}

// pump moves the bytes of one direction, which it counts, after some that come first, and then passes on how it ended.
func (p *pair) pump(src, dst *leg, first []byte, copied *atomic.Uint64) {
	buf := buffers.Get().(*[32 << 10]byte)
	from := source{leg: src, first: first, stir: p.stir}
	_, err := io.CopyBuffer(destination{leg: dst, src: src, pair: p, copied: copied}, &from, buf[:])
	buffers.Put(buf)
	p.complain(err)
	switch {
	case from.failed:
		p.fail(src, dst, err)
		return
	case err == nil:
		p.first.CompareAndSwap(nil, src) // before the other side can answer
		dst.shut.Store(true)
		err = dst.CloseWrite()
	}
	switch {
	case err == nil && p.ended.Add(1) == 1:
		p.watch(src, dst)
	case err == nil:
		_ = dst.SetReadDeadline(time.Now()) // the other direction has ended before: it need not watch any more
	case dst.refused.Load():
		// The other direction goes on to its end.
	default:
		// What dst sent before it failed is still to be read, by the other direction.
		p.note(dst, err)
		dst.cut.Store(true)
		bound := time.Now().Add(flushTimeout)
		_ = src.SetWriteDeadline(bound) // these fail on closed connections, which need none
		_ = dst.SetReadDeadline(bound)
	}
}

// watch waits, after the end of a leg's direction, until the other direction has ended too. A reset of the leg, which
// nobody would read or write to hear of, ends the pair.
func (p *pair) watch(lg, other *leg) {
	raw, err := lg.SyscallConn()
	if err != nil {
		return // closed
	}
	err = raw.Read(func(uintptr) bool { return gone(lg.TCPConn) })
	if err == nil && lg.wasReset() {
		p.fail(lg, other, nil)
	}
}

// wasReset says whether the connection has ended both ways although its write side was not shut down. (In this order:
// shut is set before the shutdown that may end the connection in the meantime.)
func (lg *leg) wasReset() bool { return gone(lg.TCPConn) && !lg.shut.Load() }

// gaveUp says whether bytes for the leg were lost.
func (lg *leg) gaveUp() bool { return lg.cut.Load() || lg.refused.Load() }

// fail passes the failure of one leg on to the other. A nil error stands for a reset.
func (p *pair) fail(failed, other *leg, err error) {
	p.failed.Do(func() {
		trouble := p.trouble.Load()
		switch {
		case p.port.engine.closing.Err() != nil:
			p.end = connection.End{By: connection.Proxy, Reason: connection.Stopped}
		case trouble != nil:
			p.end = *trouble
		default:
			p.end = connection.Failure(failed.side, err)
		}
		p.port.engine.stats.aborted.Add(1)
		reset(failed.TCPConn)
		p.flush(other)
		reset(other.TCPConn)
	})
}

// note remembers why a write failed: that the leg did. A nil error stands for a reset.
func (p *pair) note(failed *leg, err error) {
	why := connection.Failure(failed.side, err)
	p.trouble.CompareAndSwap(nil, &why)
}

// complain reports why a leg failed, unless that is what peers do, or what the pair has done to itself.
func (p *pair) complain(err error) {
	if err == nil {
		return
	}
	for _, ordinary := range []error{
		syscall.ECONNRESET, syscall.EPIPE, syscall.ENOTCONN, errReset, net.ErrClosed, os.ErrDeadlineExceeded,
	} {
		if errors.Is(err, ordinary) {
			return
		}
	}
	p.port.engine.options.Load().Report("relay", p.client.Client, p.port.backend, err)
}

// flush waits until the peer has acknowledged everything, within flushTimeout.
func (p *pair) flush(other *leg) {
	const maxPoll = 100 * time.Millisecond
	poll := 5 * time.Millisecond
	for deadline := time.Now().Add(flushTimeout); unacknowledged(other.TCPConn) > 0; poll = min(2*poll, maxPoll) {
		if time.Now().After(deadline) || !wait(p.port.engine.closing, poll) {
			return
		}
	}
}

// reset closes a connection so that its peer sees a reset.
func reset(conn *net.TCPConn) {
	// Both fail only on a connection that is closed already.
	_ = conn.SetLinger(0)
	_ = conn.Close()
}

// source is a leg as io.Copy reads it: without WriteTo, and with failures told from ends.
type source struct {
	leg    *leg
	first  []byte // is read before what the leg has; much less than a buffer
	stir   func() // before bytes are passed on
	failed bool
}

func (s *source) Read(b []byte) (n int, err error) {
	if n = copy(b, s.first); n > 0 { // and leaves by itself if the leg has nothing yet
		s.first = nil
		more, readErr := readNow(s.leg.TCPConn, b[n:])
		n, err = n+more, readErr
	} else {
		n, err = s.leg.Read(b)
	}
	if n > 0 {
		s.stir()
	}
	switch {
	case err == nil:
	case !errors.Is(err, io.EOF):
		s.failed = true
	case s.leg.wasCut():
		// The system reports a failure once, here to a write, and end of file after it.
		s.failed, err = true, errReset
	}
	return n, err
}

// wasCut says whether an end of file stands for a failure that a write to the leg was told of.
func (lg *leg) wasCut() bool {
	if gone(lg.TCPConn) {
		lg.writing.Lock() // a write that is under way fails at once, and says why
		defer lg.writing.Unlock()
	}
	return lg.cut.Load()
}

// destination is a leg as io.Copy writes to it: without ReadFrom, and counting.
type destination struct {
	leg  *leg
	src  *leg // where the bytes come from
	pair *pair

	copied *atomic.Uint64
}

func (d destination) Write(b []byte) (n int, err error) {
	d.leg.writing.Lock()
	defer d.leg.writing.Unlock()
	for {
		// A peer that does not read keeps the write waiting, for ever if need be, but not past the end of the
		// source's connection.
		if err := d.leg.SetWriteDeadline(time.Now().Add(flushTimeout)); err != nil {
			return n, err
		}
		written, err := d.leg.Write(b[n:])
		n += written
		d.leg.taken.Add(uint64(written))
		d.copied.Add(uint64(written))
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && !d.src.wasReset():
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			d.pair.note(d.src, nil)
			d.leg.cut.Store(true)
		case errors.Is(err, syscall.EPIPE):
			d.pair.note(d.leg, err)
			d.leg.refused.Store(true)
		case err != nil:
			d.pair.note(d.leg, err)
			d.leg.cut.Store(true)
		}
		return n, err
	}
}
