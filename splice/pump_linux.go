package splice

import "golang.org/x/sys/unix"

const (
	// copySize is the loop's shared buffer and so the most that one recv takes.
	copySize = 64 << 10

	// smallTurn is what a pump may move at an event before it goes to a queue.
	smallTurn = copySize

	// A slice of a stream is what everybody else on the loop waits for: a pipe, or as many copied bytes.
	sliceBytes = pipeSize

	// turnBytes is what a stream may move, while its source has more and its destination takes it, before the next
	// one has its turn. With 64 streams 8 MiB took 21% less of the proxy's CPU per byte than 1 MiB, and 24 MiB no less
	// than 8 (docs/performance.md): it is more than a receiver's window, so that a stream runs until it blocks.
	turnBytes = 8 << 20

	// A pump is a stream's from a turn on that moves streamTurn, or after turns of largeRead and more that moved about as much
	// without a word from the other side. It is none any more after some streamTurns turns that move less and answer such a
	// word, or that are small.
	// How much a read brings does not tell streams from messages: streams that share a loop have turns of 1 to 8 MiB, but in
	// between shorter ones, most of them of 128 to 256 KiB, as replies have. Nor does a full destination, which the first large
	// messages of a connection may fill, too. (A download of which the client acknowledges every 64 KiB, as HTTP/2 and SSH may,
	// is messages where it has no longer turns.)
	streamTurn  = sliceBytes / 2
	streamTurns = streamTurn / largeRead

	// A pump splices after streamAfter reads in a row of at least largeRead bytes, and copies again after as
	// many in a row that were smaller. Below that, copying wins: with 64 clients and 64 B, recv and send made
	// 48,000 exchanges a second where splice made 30,000.
	largeRead   = 32 << 10
	streamAfter = 3
)

// pumpMode is how a pump moves bytes.
type pumpMode uint8

const (
	copying  pumpMode = iota
	splicing          // its reads are large
	copyOnly          // the kernel does not splice these sockets, or stops at TCP's urgent mark
)

// pump moves the bytes of one direction. Its zero value is ready, for what the client sends.
type pump struct {
	pipe  *pipe  // while bytes are in it
	rest  []byte // a chunk of the loop's with copied bytes that wait; while the backend is dialed, a header for it
	total uint64 // bytes that have reached the destination
	held  int32  // bytes in pipe, or the last ones of rest
	moved int32  // bytes of this turn
	state pumpState
	mode  pumpMode
	from  side
	// stream says that it is a stream's, from streamTurns on, and falls by turns. Below, it is what has moved since the other
	// side's last word, by largeRead.
	stream uint8
	// answers says that the other side has had a turn since the last of this one.
	answers bool
	// streak is how many reads in a row speak for changing between copying and splicing.
	streak uint8
}

// way is between which sockets a pump moves bytes, and how.
type way struct {
	src, dst int
	policy   Policy
	last     bool // the other direction has ended: the pair is about to be closed, which passes the end of file on too

	// cut says that the source's connection is known to have failed. The kernel reports an error once and end of file
	// after it, so that end of file from here on is the failure, not an orderly end.
	cut bool
}

// splices says whether the next read is to be a splice.
func (p *pump) splices(policy Policy) bool {
	switch policy {
	case Always:
		return p.mode != copyOnly
	case Never:
		return false
	default:
		return p.mode == splicing
	}
}

// streams says whether the pump is a stream's.
func (p *pump) streams() bool { return p.stream >= streamTurns || p.moved >= streamTurn }

// turned is called when a turn of the pump has come to its end, and tells other.
func (p *pump) turned(other *pump) {
	switch {
	case p.moved == 0:
		return
	case p.moved >= streamTurn:
		p.stream = 2 * streamTurns
	case p.stream > streamTurns:
		if p.answers || p.moved < largeRead { // else it may be the rest of a message
			p.stream--
		}
	case p.answers || p.stream == streamTurns:
		p.stream = uint8(p.moved / largeRead)
	default: // small pieces one way say nothing
		if p.stream += uint8(p.moved / largeRead); p.stream >= streamTurns {
			p.stream = 2 * streamTurns
		}
	}
	p.moved, p.answers, other.answers = 0, false, true // what the pump holds may leave in parts
}

// step reads once, most bytes at the most, into the pump that holds nothing, and writes what it has read as far as the
// destination takes it.
func (p *pump) step(s *share, w way, most int) verdict {
	if p.splices(w.policy) {
		if v, ok := p.spliceStep(s, w, most); ok {
			return v
		}
	}
	l := s.loop
	n, errno := l.kernel.recv(w.src, l.buffer)
	switch {
	case errno == unix.EAGAIN:
		return awaitSource
	case errno != 0:
		return l.fail(sourceFailed, errno)
	case n == 0:
		return p.end(l, w)
	}
	p.observe(l, w.src, n)
	if v := p.send(s, w.dst, l.buffer[:n]); v != more {
		return v
	}
	// After a short read there is nothing to be had, and asking would cost a call to hear EAGAIN.
	if n < len(l.buffer) {
		return drained
	}
	return more
}

// introduce is the first step where the destination is told who the client is: it writes the header, which stands in the
// loop's buffer already, and in the same send what the source has. If it has nothing yet and is to be waited for, no byte moves.
func (p *pump) introduce(s *share, w way, header int, wait bool) verdict {
	l := s.loop
	n, errno := l.kernel.recv(w.src, l.buffer[header:])
	switch {
	case errno == unix.EAGAIN && wait:
		return awaitSource
	case errno != 0 && errno != unix.EAGAIN:
		return l.fail(sourceFailed, errno)
	}
	p.observe(l, w.src, n)
	if v := p.send(s, w.dst, l.buffer[:header+n]); v != more {
		return v
	}
	if header+n < len(l.buffer) {
		return drained // or it had nothing, or an end, which the next read is told, too
	}
	return more
}

// spliceStep is step by splice(2). It reports !ok when the pump must copy instead; no byte has moved then.
func (p *pump) spliceStep(s *share, w way, most int) (v verdict, ok bool) {
	l := s.loop
	pipe := l.pipes.get(l.kernel)
	if pipe == nil {
		add(&s.count.pipesRefused, 1)
		p.mode, p.streak = copying, 0
		return 0, false
	}
	n, errno := l.kernel.splice(w.src, pipe.w, min(pipe.size, most))
	if n > 0 {
		p.pipe, p.held = pipe, int32(n)
		p.observe(l, w.src, n)
		return p.drain(s, w.dst), true // a short splice says nothing: a pipe may be full of small fragments
	}
	l.pipes.put(pipe)
	switch errno {
	case unix.EAGAIN:
		return awaitSource, true
	case 0:
		return 0, false // the end, which recv can tell from an urgent mark
	case unix.EINVAL, unix.ENOSYS, unix.EPERM, unix.EOPNOTSUPP:
		// A kernel or sandbox without splice on this kind of socket says so on the first call.
		p.mode = copyOnly
		return 0, false
	}
	return l.fail(sourceFailed, errno), true
}

// observe takes a read of n bytes from src as evidence for or against streaming.
func (p *pump) observe(l *loop, src, n int) {
	p.moved += int32(n)
	switch {
	case p.mode == copyOnly:
	case (n >= largeRead) == (p.mode == splicing):
		p.streak = 0
	case p.streak+1 < streamAfter:
		p.streak++
	default:
		if p.mode, p.streak = splicing-p.mode, 0; p.mode == splicing {
			l.boundReceive(src)
		}
	}
}

// drain writes what the pump holds: more when all has left.
func (p *pump) drain(s *share, dst int) verdict {
	if p.pipe == nil {
		return p.sendRest(s, dst)
	}
	l := s.loop
	for part := false; p.held > 0; part = true {
		n, errno := l.kernel.splice(p.pipe.r, dst, int(p.held))
		switch {
		case errno == unix.EAGAIN:
			return awaitDestination
		case errno == unix.EPIPE && part:
			// The splice before had met the failure, after a part, and dropped its cause (splice_to_socket in
			// fs/splice.c). For all that is known what dst sent is not complete.
			return l.fail(destinationFailed, unix.ECONNRESET)
		case errno != 0:
			return l.fail(destinationFailed, errno)
		}
		p.held -= int32(n)
		p.total += uint64(n)
		add(&s.count.spliced[p.from], n)
	}
	l.pipes.put(p.pipe)
	p.pipe = nil
	return more
}

// send writes what has just been read, and keeps what the destination does not take: the loop's buffer is overwritten by
// the next pump.
func (p *pump) send(s *share, dst int, b []byte) verdict {
	sent, errno := p.write(s, dst, b)
	switch errno {
	case 0:
		return more
	case unix.EAGAIN:
		p.rest, p.held = s.loop.chunks.keep(b[sent:]), int32(len(b)-sent)
		return awaitDestination
	}
	return s.loop.fail(destinationFailed, errno)
}

// sendRest writes what send has kept.
func (p *pump) sendRest(s *share, dst int) verdict {
	sent, errno := p.write(s, dst, p.rest[len(p.rest)-int(p.held):])
	p.held -= int32(sent)
	switch errno {
	case 0:
		s.loop.chunks.put(p.rest)
		p.rest = nil
		return more
	case unix.EAGAIN:
		return awaitDestination
	}
	return s.loop.fail(destinationFailed, errno)
}

// write sends all of b, unless it cannot.
func (p *pump) write(s *share, dst int, b []byte) (sent int, errno unix.Errno) {
	for sent < len(b) {
		n, errno := s.loop.kernel.send(dst, b[sent:])
		if errno != 0 {
			return sent, errno
		}
		sent += n
		p.total += uint64(n)
		add(&s.count.copied[p.from], n)
	}
	return sent, 0
}

// end passes the end of file on.
func (p *pump) end(l *loop, w way) verdict {
	if w.cut {
		return l.fail(sourceFailed, unix.ECONNRESET)
	}
	if !w.last {
		if errno := l.kernel.shutdown(w.dst); errno != 0 {
			return l.fail(destinationFailed, errno)
		}
	}
	return finished
}

// fail notes why a step failed, for its caller, and gives its verdict.
func (l *loop) fail(v verdict, errno unix.Errno) verdict {
	l.errno = errno
	return v
}

// release gives back what the pump holds. A pipe with bytes in it is destroyed: pooled, it would hand them to another
// connection.
func (p *pump) release(l *loop) {
	l.chunks.put(p.rest)
	p.rest = nil
	if p.pipe != nil {
		l.pipes.destroy(p.pipe)
		p.pipe = nil
	}
	p.held = 0
}
