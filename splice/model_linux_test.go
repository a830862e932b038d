package splice

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/eventloop"
)

// The pump is run against a kernel that plays every schedule of short reads, short writes, EAGAIN, end of file and
// failures, and compared with a plain model: what arrives is what was sent, in order, and the verdict fits.

// decisions are the choices of a schedule: each call picks one of n. Without choices left it picks the last, which
// always makes progress.
type decisions func(n int) int

// Descriptors of the scripted sockets. Pipes are real ones, so that the pool is the real one too.
const (
	scriptedSource      = -10
	scriptedDestination = -11
)

// script is a kernel with one source, one destination and any number of pipes.
type script struct {
	linux
	t      *testing.T
	decide decisions

	queued   []byte // to be read from the source
	header   int    // bytes of a header that the first read is for
	ending   unix.Errno
	ended    bool   // the source answered with its end, or failed
	received []byte // in this turn
	checked  int    // bytes received in earlier turns
	shut     bool
	broken   bool // the destination failed
	inFlight int  // bytes read and not yet written
	blocked  bool
	noSplice bool
	filled   int    // the write end of the pipe that was filled last
	piped    []byte // what is in it
}

func (s *script) take(n int) int {
	if n == 0 {
		return 0
	}
	switch s.decide(8) {
	case 0, 1:
		return 1 + s.decide(n)
	case 2:
		return min(n, 1+s.decide(16))
	default:
		return n
	}
}

// fromSource gives how many of n bytes a read moves.
func (s *script) fromSource(n int) (int, unix.Errno) {
	if s.inFlight > 0 {
		s.t.Fatalf("the source is read while %d bytes are held", s.inFlight)
	}
	switch {
	case s.ended: // an end stays, but a failure is told once
		return 0, 0
	case s.decide(6) == 0:
		return 0, unix.EAGAIN
	case len(s.queued) == 0:
		s.ended = true
		return 0, s.ending
	}
	return s.take(min(n, len(s.queued))), 0
}

// toDestination gives how many of n bytes a write moves.
func (s *script) toDestination(n int) (int, unix.Errno) {
	if s.shut {
		s.t.Fatal("a write follows the shutdown")
	}
	s.blocked = false
	switch s.decide(40) {
	case 0:
		s.broken = true
		return 0, unix.EPIPE
	case 1, 2, 3, 4, 5, 6, 7, 8:
		s.blocked = true
		return 0, unix.EAGAIN
	}
	return s.take(n), 0
}

func (s *script) recv(fd int, b []byte) (int, unix.Errno) {
	if fd != scriptedSource {
		s.t.Fatalf("recv from %d", fd)
	}
	n, errno := s.fromSource(len(b))
	copy(b, s.queued[:n])
	s.queued = s.queued[n:]
	s.inFlight += n
	if errno == 0 || errno == unix.EAGAIN {
		s.inFlight += s.header
	}
	s.header = 0
	return n, errno
}

func (s *script) send(fd int, b []byte) (int, unix.Errno) {
	if fd != scriptedDestination {
		s.t.Fatalf("send to %d", fd)
	}
	n, errno := s.toDestination(len(b))
	s.received = append(s.received, b[:n]...)
	s.inFlight -= n
	return n, errno
}

func (s *script) splice(from, to, n int) (int, unix.Errno) {
	if from == scriptedSource {
		switch {
		case s.noSplice:
			return 0, unix.EINVAL
		case len(s.queued) > 0 && s.decide(10) == 0: // at an urgent mark
			return 0, []unix.Errno{0, unix.EAGAIN}[s.decide(2)]
		}
		moved, errno := s.fromSource(n)
		if moved > 0 {
			s.filled, s.piped = to, append(s.piped, s.queued[:moved]...)
			s.queued = s.queued[moved:]
			s.inFlight += moved
		}
		return moved, errno
	}
	if n > len(s.piped) || to != scriptedDestination {
		s.t.Fatalf("splice of %d bytes from pipe %d, with %d, to %d", n, from, len(s.piped), to)
	}
	moved, errno := s.toDestination(n)
	s.received = append(s.received, s.piped[:moved]...)
	s.piped = s.piped[moved:]
	s.inFlight -= moved
	return moved, errno
}

func (s *script) shutdown(fd int) unix.Errno {
	if fd != scriptedDestination || s.shut {
		s.t.Fatalf("shutdown of %d, for the second time: %v", fd, s.shut)
	}
	if s.decide(20) == 0 {
		s.broken = true
		return unix.ENOTCONN
	}
	s.shut = true
	return 0
}

// play runs one schedule to its end.
func play(t *testing.T, on *eventloop.Loop, decide decisions) {
	content := make([]byte, decide(3)*200_000+decide(1000))
	if decide(8) == 0 {
		content = nil
	}
	for i := range content {
		content[i] = byte(i * 7 >> 3)
	}
	s := &script{t: t, decide: decide, queued: content, noSplice: decide(8) == 0}
	if decide(3) == 0 {
		s.ending = unix.ECONNRESET
	}
	garbage := bytes.Repeat([]byte{0xa5}, copySize)
	engine := &Engine{kernel: s}
	l := newLoop(engine, on)
	defer l.end()
	beyond := decide(4) == 0 // no pipe is to be had
	if beyond {
		engine.pipes.Store(maxPipes)
	}
	w := way{
		src: scriptedSource, dst: scriptedDestination,
		policy: []Policy{Adaptive, Adaptive, Always, Never}[decide(4)],
		cut:    decide(5) == 0, last: decide(3) == 0,
	}
	p, part := &pump{}, &share{loop: l}
	introduced := 0
	if decide(3) == 0 { // the backend is told who the client is
		header := bytes.Repeat([]byte("H"), 1+decide(107))
		introduced, s.header = copy(l.buffer, header), len(header)
		content = append(header, content...)
	}
	for steps := 0; p.state != over; steps++ {
		if steps > 100_000 {
			t.Fatal("the pump makes no progress")
		}
		var v verdict
		if p.state == holding {
			if v = p.drain(part, w.dst); v == more {
				p.on(l, v)
				continue
			}
		} else if s.header > 0 {
			if v = p.introduce(part, w, introduced, false); v == sourceFailed && s.checked+len(s.received) == 0 {
				content = content[introduced:] // whose client is gone
			}
		} else {
			v = p.step(part, w, sliceBytes)
		}
		p.on(l, v)
		copy(l.buffer, garbage) // what the pump holds between steps may not live here
		s.check(p, v, w, content)
	}
	open := int(engine.pipes.Load())
	if beyond {
		open -= maxPipes
	}
	if lent := open - len(l.pipes.free); lent != 0 {
		t.Errorf("%d pipes were not given back", lent)
	}
	for _, free := range l.pipes.free {
		if free.w == s.filled && len(s.piped) > 0 {
			t.Errorf("a pipe with %d bytes went back to the pool", len(s.piped))
		}
	}
}

// holds says whether bytes wait in the pump.
func (p *pump) holds() bool { return p.held > 0 || p.pipe != nil || p.rest != nil }

// check compares the pump's verdict with what the scripted kernel saw.
func (s *script) check(p *pump, v verdict, w way, content []byte) {
	t := s.t
	if end := s.checked + len(s.received); end > len(content) || !bytes.Equal(content[s.checked:end], s.received) {
		t.Fatalf("bytes arrived changed or out of order after %d", s.checked)
	}
	s.checked += len(s.received)
	s.received = s.received[:0]
	switch v {
	case more, drained, awaitSource:
		if p.holds() || s.inFlight != 0 || s.ended && v == awaitSource {
			t.Fatalf("waits for the source with %d bytes held, the source ended: %v", s.inFlight, s.ended)
		}
	case awaitDestination:
		if !p.holds() || !s.blocked || s.inFlight == 0 {
			t.Fatalf("waits for the destination with %d bytes held, it blocked: %v", s.inFlight, s.blocked)
		}
	case finished:
		if s.shut == w.last || s.checked != len(content) || s.ending != 0 || w.cut {
			t.Fatalf("finished with %d of %d bytes, shut down: %v, cut: %v", s.checked, len(content), s.shut, w.cut)
		}
	case sourceFailed:
		if s.shut || s.checked != len(content) || s.ending == 0 && !w.cut {
			t.Fatalf("the source failed after %d of %d bytes, shut down: %v", s.checked, len(content), s.shut)
		}
	case destinationFailed:
		if !s.broken {
			t.Fatal("the destination failed, but it did not")
		}
	}
	if p.state == over && p.holds() {
		t.Fatalf("%d bytes are held after verdict %d", p.held, v)
	}
}

func TestPumpAgainstModel(t *testing.T) {
	const schedules = 1500
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	on := group(t).First()
	for range schedules {
		play(t, on, random.IntN)
	}
}

func FuzzPump(f *testing.F) {
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0}, 64))
	f.Add([]byte("\x02\x10\x01\x02\x03\x03\x05\x05\x04\x04\x02\x10\x30\x00\x01\x02\x03"))
	f.Fuzz(func(t *testing.T, choices []byte) {
		play(t, group(t).First(), func(n int) int {
			if len(choices) == 0 {
				return n - 1
			}
			choice := int(choices[0])
			choices = choices[1:]
			return choice % n
		})
	})
}
