package splice

import "golang.org/x/sys/unix"

const (
	// copySize is the loop's shared buffer and so the most that one recv takes.
	copySize = 64 << 10

	// turnBytes is what a pump may take from its source before others have their turn: one pipe. With 8 bulk flows a
	// turn of 2 MiB had 0.77 of the throughput of io.Copy where one pipe had 0.91 (pipes of 1 MiB, one loop).
	turnBytes = pipeSize

	// A pump splices after streamAfter reads in a row of at least largeRead bytes, and copies again after as
	// many in a row that were smaller. Below that, copying wins: with 64 clients and 64 B, recv and send made
	// 48,000 exchanges a second where splice made 30,000.
	largeRead   = 32 << 10
	streamAfter = 3
)

// verdict is how a turn of a pump ended.
type verdict uint8

const (
	awaitSource       verdict = iota // the pump is empty: go on when the source is readable
	awaitDestination                 // the pump holds bytes: go on when the destination is writable
	finished                         // end of file was passed on
	sourceFailed                     // what the source delivered before has left
	destinationFailed                // what the pump held is lost
)

// pump moves the bytes of one direction. Its zero value is ready, empty and copying. The states are explained
// in the package documentation.
type pump struct {
	held    []byte     // bytes read and not yet sent, in the loop's shared buffer or in chunk
	chunk   *chunk     // where held lives between turns; nil otherwise
	pipe    *pipe      // held by the pump only while bytes are in it
	errno   unix.Errno // why the last turn failed
	piped   int32      // bytes in pipe
	streak  uint8      // reads in a row that speak for changing between copying and splicing
	streams bool       // splicing rather than copying
	refused bool       // the kernel does not splice these sockets
	eof     bool       // the source has ended
	exhaust bool       // the source has said more than that there are bytes: read until it has nothing
	unread  bool       // the last turn may have left something in the source
	over    bool       // the last turn returned finished or a failure, or the pump was abandoned

	// last says that the other direction has ended: the pair is about to be closed, which passes the end of file on
	// too.
	last bool

	// cut says that the source's connection is known to have failed. The kernel reports an error once and end
	// of file after it, so that end of file from here on is the failure, not an orderly end.
	cut bool
}

// holding says whether bytes wait for the destination.
func (p *pump) holding() bool { return len(p.held) > 0 || p.piped > 0 }

// wants says whether the pump would read if the source had something.
func (p *pump) wants() bool { return !p.over && !p.eof && !p.holding() }

// turn moves bytes from src to dst until one of them blocks, the source has given a short read, or turnBytes
// have passed.
func (p *pump) turn(l *loop, src, dst int) verdict {
	short := false
	p.unread = false
	for budget := turnBytes; ; {
		if errno := p.drain(l, dst); errno != 0 {
			return p.fail(l, destinationFailed, errno)
		}
		switch {
		case p.holding():
			p.keep(l)
			return awaitDestination
		case p.eof:
			return p.finish(l, dst)
		case short:
			return awaitSource
		case budget <= 0:
			l.load.backlog, p.unread = true, true
			return awaitSource
		}
		n, asked, errno := p.fill(l, src)
		switch {
		case errno == unix.EAGAIN:
			return awaitSource
		case errno != 0:
			return p.fail(l, sourceFailed, errno)
		case n == 0 && p.cut:
			return p.fail(l, sourceFailed, unix.ECONNRESET)
		case n == 0:
			p.eof = true
		}
		// After a short read there is nothing to be had, and asking would cost a call to hear EAGAIN. What comes
		// later makes an event. A pipe, though, may be full of small fragments.
		short = n < asked && !p.exhaust
		p.unread = p.piped > 0 && short
		budget -= n
		p.observe(n)
	}
}

// fill reads once from src into the empty pump: n of asked bytes.
func (p *pump) fill(l *loop, src int) (n, asked int, errno unix.Errno) {
	if p.splices(l) {
		if n, errno, ok := p.fillPipe(l, src); ok {
			return n, pipeSize, errno
		}
	}
	n, errno = l.kernel.recv(src, l.buf)
	p.held = l.buf[:n]
	return n, len(l.buf), errno
}

// splices says whether the next read is to be a splice.
func (p *pump) splices(l *loop) bool {
	switch l.options.Policy {
	case Always:
		return !p.refused
	case Never:
		return false
	default:
		return p.streams && !p.refused
	}
}

// fillPipe splices once from src. It reports !ok when the pump must copy instead; no byte has moved then.
func (p *pump) fillPipe(l *loop, src int) (n int, errno unix.Errno, ok bool) {
	pipe := l.pipes.get(l.kernel)
	if pipe == nil {
		l.stats.pipesRefused.Add(1)
		p.streams, p.streak = false, 0
		return 0, 0, false
	}
	n, errno = l.kernel.splice(src, pipe.w, pipe.size)
	if n > 0 {
		p.pipe, p.piped = pipe, int32(n)
		return n, 0, true
	}
	l.pipes.put(pipe)
	switch errno {
	case 0, unix.EAGAIN:
		// Splice stops at TCP's urgent mark, and then answers as if the source were empty or had ended
		// (tcp_splice_read in net/ipv4/tcp.c). Only recv can tell.
		return 0, 0, false
	case unix.EINVAL, unix.ENOSYS, unix.EPERM, unix.EOPNOTSUPP:
		// A kernel or sandbox without splice on this kind of socket says so on the first call.
		p.refused = true
		return 0, 0, false
	}
	return 0, errno, true
}

// observe takes a read of n bytes as evidence for or against streaming. An end of file says nothing.
func (p *pump) observe(n int) {
	switch {
	case n == 0:
	case (n >= largeRead) == p.streams:
		p.streak = 0
	case p.streak+1 < streamAfter:
		p.streak++
	default:
		p.streams, p.streak = !p.streams, 0
	}
}

// drain writes what the pump holds until all has left or dst would block.
func (p *pump) drain(l *loop, dst int) unix.Errno {
	for part := false; p.piped > 0; part = true {
		n, errno := l.kernel.splice(p.pipe.r, dst, int(p.piped))
		if part && errno == unix.EPIPE {
			// The splice before had met the failure, after a part, and dropped its cause (splice_to_socket in
			// fs/splice.c). For all that is known what dst sent is not complete.
			return unix.ECONNRESET
		}
		if errno != 0 {
			return blocked(errno)
		}
		p.piped -= int32(n)
		l.stats.spliced.Add(uint64(n))
	}
	if p.pipe != nil {
		l.pipes.put(p.pipe)
		p.pipe = nil
	}
	for len(p.held) > 0 {
		n, errno := l.kernel.send(dst, p.held)
		if errno != 0 {
			return blocked(errno)
		}
		p.held = p.held[n:]
		l.stats.copied.Add(uint64(n))
	}
	if p.chunk != nil {
		l.chunks.put(p.chunk)
		p.chunk = nil
	}
	return 0
}

// blocked clears the errno of a write that has to be tried later.
func blocked(errno unix.Errno) unix.Errno {
	if errno == unix.EAGAIN {
		return 0
	}
	return errno
}

// keep moves bytes out of the loop's shared buffer, which the next pump will overwrite.
func (p *pump) keep(l *loop) {
	if len(p.held) > 0 && p.chunk == nil {
		p.chunk = l.chunks.get()
		p.held = p.chunk[:copy(p.chunk[:], p.held)]
	}
}

// finish passes the end of file on.
func (p *pump) finish(l *loop, dst int) verdict {
	if !p.last {
		if errno := l.kernel.shutdown(dst); errno != 0 {
			return p.fail(l, destinationFailed, errno)
		}
	}
	p.over = true
	return finished
}

func (p *pump) fail(l *loop, v verdict, errno unix.Errno) verdict {
	p.errno = errno
	p.abandon(l)
	return v
}

// abandon ends the pump and gives back what it holds. A pipe with bytes in it is destroyed: pooled, it would
// hand them to another connection.
func (p *pump) abandon(l *loop) {
	p.over = true
	p.held = nil
	if p.chunk != nil {
		l.chunks.put(p.chunk)
		p.chunk = nil
	}
	if p.pipe != nil {
		l.pipes.destroy(p.pipe)
		p.pipe, p.piped = nil, 0
	}
}
