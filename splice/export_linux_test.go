package splice

import "golang.org/x/sys/unix"

// FailAccepts has the next calls of accept(2) fail. The engine has no port yet.
func (e *Engine) FailAccepts(errnos []unix.Errno) {
	e.loops[0].kernel = &failingAccepts{errnos: errnos}
}

type failingAccepts struct {
	linux
	errnos []unix.Errno
}

func (f *failingAccepts) accept(listener int, from *unix.RawSockaddrAny) (int, unix.Errno) {
	if len(f.errnos) == 0 {
		return f.linux.accept(listener, from)
	}
	errno := f.errnos[0]
	f.errnos = f.errnos[1:]
	return -1, errno
}

// FailPipes has every call of pipe2(2) fail. The engine has no port yet.
func (e *Engine) FailPipes(errno unix.Errno) { e.loops[0].kernel = failingPipes{errno: errno} }

type failingPipes struct {
	linux
	errno unix.Errno
}

func (f failingPipes) pipe() (r, w int, errno unix.Errno) { return -1, -1, f.errno }

// Legs gives the descriptors of all legs, for tests that look at their sockets.
func (e *Engine) Legs() (fds []int) {
	for _, l := range e.loops {
		l.do(func() {
			for s := range l.slots.all() {
				if lg, ok := s.handler.(*leg); ok {
					fds = append(fds, lg.fd)
				}
			}
		})
	}
	return fds
}

// Grow starts another loop, as if the last one had been saturated.
func (e *Engine) Grow() {
	e.grow(e.lastLoop())
	e.Hold()
}

// Hold keeps the last loop from being started or ended by its load.
func (e *Engine) Hold() {
	l := e.lastLoop()
	l.do(func() {
		l.overload = func(*loop) {}
		if l.idle != nil {
			l.idle = l.overload
		}
	})
}

// Retire ends the last loop, as if it had had little to do.
func (e *Engine) Retire() { e.retire(e.lastLoop()) }

func (e *Engine) lastLoop() *loop {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.loops[len(e.loops)-1]
}
