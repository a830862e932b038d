package splice

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/eventloop"
)

// FailCalls has the next calls of accept(2), and of socket(2) for backends, fail. The engine has no port yet.
func (e *Engine) FailCalls(accepts, sockets []unix.Errno) {
	e.kernel = &failingCalls{accepts: accepts, sockets: sockets}
}

type failingCalls struct {
	linux
	mu               sync.Mutex
	accepts, sockets []unix.Errno
}

func (f *failingCalls) next(errnos *[]unix.Errno) (errno unix.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(*errnos) > 0 {
		errno, *errnos = (*errnos)[0], (*errnos)[1:]
	}
	return errno
}

func (f *failingCalls) accept(listener int, from *unix.RawSockaddrAny) (int, unix.Errno) {
	if errno := f.next(&f.accepts); errno != 0 {
		return -1, errno
	}
	return f.linux.accept(listener, from)
}

func (f *failingCalls) socket(family int) (int, unix.Errno) {
	if errno := f.next(&f.sockets); errno != 0 {
		return -1, errno
	}
	return f.linux.socket(family)
}

// AfterAccept has then called on the loop for each connection that was accepted. The engine has no port yet.
func (e *Engine) AfterAccept(then func()) { e.kernel = acceptThen{then: then} }

type acceptThen struct {
	linux
	then func()
}

func (a acceptThen) accept(listener int, from *unix.RawSockaddrAny) (int, unix.Errno) {
	fd, errno := a.linux.accept(listener, from)
	if errno == 0 {
		a.then()
	}
	return fd, errno
}

// FailPipes has every call of pipe2(2) fail. The engine has no port yet.
func (e *Engine) FailPipes(errno unix.Errno) { e.kernel = failingPipes{errno: errno} }

type failingPipes struct {
	linux
	errno unix.Errno
}

func (f failingPipes) pipe() (r, w int, errno unix.Errno) { return -1, -1, f.errno }

// Legs gives the descriptors of all legs, for tests that look at their sockets.
func (e *Engine) Legs() (fds []int) {
	for _, l := range e.all() {
		l.Do(func() {
			for p := range l.pairs() {
				fds = append(fds, int(p.legs[front].fd), int(p.legs[back].fd))
			}
		})
	}
	return fds
}

// LoopsInUse is how many loops have pairs.
func (e *Engine) LoopsInUse() (n int) {
	for _, l := range e.all() {
		l.Do(func() {
			for range l.pairs() {
				n++
				break
			}
		})
	}
	return n
}

// Moved is how many bytes the port's connections have moved on each loop.
func (p *Port) Moved() map[*eventloop.Loop]uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	moved := make(map[*eventloop.Loop]uint64)
	for _, s := range p.shares {
		count := s.count.read()
		moved[s.loop.Loop] = count.BytesIn + count.BytesOut
	}
	return moved
}

// Group gives the event loops.
func (e *Engine) Group() *eventloop.Group { return e.group }

// all gives what the engine keeps for each loop.
func (e *Engine) all() (loops []*loop) {
	for _, l := range e.loops.Range {
		loops = append(loops, l.(*loop))
	}
	return loops
}

// pairs yields the pairs on a loop, of all ports.
func (l *loop) pairs() func(yield func(*pair) bool) {
	return func(yield func(*pair) bool) {
		for _, s := range l.shares {
			for p := s.first; p != nil; p = p.next {
				if !yield(p) {
					return
				}
			}
		}
	}
}
