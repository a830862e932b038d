package fallback

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
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
	engine *Engine
	front  leg
	back   leg
	failed sync.Once // the first failure decides what the other leg sees
}

// leg is one side of a pair.
type leg struct {
	*net.TCPConn
	shut atomic.Bool // its write side was shut down by us
	cut  atomic.Bool // a write to it failed: the connection is gone, whatever its read side says
}

func newPair(e *Engine, front, back *net.TCPConn) *pair {
	return &pair{engine: e, front: leg{TCPConn: front}, back: leg{TCPConn: back}}
}

// relay moves bytes both ways until both directions have ended, and closes both connections.
func (p *pair) relay() {
	var up sync.WaitGroup
	up.Go(func() { p.pump(&p.front, &p.back) })
	p.pump(&p.back, &p.front)
	up.Wait()
	switch {
	case p.front.cut.Load():
		p.fail(&p.front, &p.back)
	case p.back.cut.Load():
		p.fail(&p.back, &p.front)
	}
	// Both ends have been passed on, or both connections reset: a close has nothing more to say.
	_ = p.front.Close()
	_ = p.back.Close()
}

// pump moves the bytes of one direction and then passes on how it ended.
func (p *pair) pump(src, dst *leg) {
	buf := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buf)
	from := source{leg: src}
	_, err := io.CopyBuffer(destination{dst, &p.engine.stats.copied}, &from, buf[:])
	if from.failed {
		p.fail(src, dst)
		return
	}
	if err == nil {
		dst.shut.Store(true)
		err = dst.CloseWrite()
	}
	if err != nil {
		// What dst sent before it failed is still to be read, by the other direction.
		dst.cut.Store(true)
		bound := time.Now().Add(flushTimeout)
		_ = src.SetWriteDeadline(bound) // these fail on closed connections, which need none
		_ = dst.SetReadDeadline(bound)
	}
}

// fail passes the failure of one leg on to the other.
func (p *pair) fail(failed, other *leg) {
	p.failed.Do(func() {
		p.engine.stats.aborted.Add(1)
		reset(failed.TCPConn)
		p.flush(other)
		reset(other.TCPConn)
	})
}

// flush waits until the peer has acknowledged everything, within flushTimeout.
func (p *pair) flush(other *leg) {
	const poll = 5 * time.Millisecond
	for deadline := time.Now().Add(flushTimeout); unacknowledged(other.TCPConn) > 0; {
		if time.Now().After(deadline) || !p.engine.wait(poll) {
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
	failed bool
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.leg.Read(b)
	switch {
	case err == nil:
	case !errors.Is(err, io.EOF):
		s.failed = true
	case s.leg.cut.Load() || gone(s.leg.TCPConn) && !s.leg.shut.Load():
		// The system reports a failure once, here to a write, and end of file after it. (In this order: shut
		// is set before the shutdown that may end the connection in the meantime.)
		s.failed, err = true, errReset
	}
	return n, err
}

// destination is a leg as io.Copy writes to it: without ReadFrom, and counting.
type destination struct {
	leg    *leg
	copied *atomic.Uint64
}

func (d destination) Write(b []byte) (int, error) {
	n, err := d.leg.Write(b)
	d.copied.Add(uint64(n))
	return n, err
}
